
# A server that dies is started again here; one that dies five times in a row, on another node.
first=${GENERATE_IMAGES_RETRY_S:-2}
pause=$first
deaths=0
while :; do
    began=$SECONDS
    run_child
    # 0: all is done, or SIGTERM; 3: a later server has taken its place
    [[ -z $leaving && $status != 0 && $status != 3 ]] || exit "$status"
    if another_answers >/dev/null 2>&1; then
        say "another job server runs for this output root"
        exit 0
    fi
    ((SECONDS - began < 600)) || { deaths=0 pause=$first; }
    deaths=$((deaths + 1))
    ((deaths < 5)) || move_away "$status"
    say "the job server has died (status $status): starting it again in $pause s"
    nap "$pause"
    [[ -z $leaving ]] || exit 1
    pause=$((2 * pause))
done
