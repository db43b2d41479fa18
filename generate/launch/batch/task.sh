
# A client that cannot even start is its node's fault. It is tried again here with growing pauses:
# meanwhile the node takes no other task of the array. Then the array keeps off the node, and this
# task is requeued.
pause=${GENERATE_IMAGES_RETRY_S:-15}
for attempt in 1 2 3 4 5; do
    run_child
    # 3: done, and some prompts failed
    [[ -z $leaving && -z $started && $status != 0 && $status != 3 ]] || exit "$status"
    say "no client could start on $node (status $status, try $attempt of 5)"
    ((attempt == 5)) || nap "$pause"
    [[ -z $leaving ]] || exit 1
    pause=$((2 * pause))
done
say "requeued, and the pending tasks keep off $node"
move_away 1
