"""The error text for an address that is no hub: a login page, a proxy, a damaged cache.

except Exception as error:       # whatever the hub's library makes of it
    raise UserError(f"…: {not_a_hub(error)}") from None
"""

import traceback


def not_a_hub(error: Exception) -> str:
    """What is wrong and what to do. Any error that is not of the hub's library is raised again."""
    frames = (frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__))
    if not any(names.get("__name__", "").startswith("huggingface_hub") for names in frames):
        raise error
    from huggingface_hub import constants  # 0.1 s that nobody else needs

    text = " ".join(str(error)[:200].split())
    return (
        f"{constants.ENDPOINT} does not answer as a hub does ({type(error).__name__}: {text}); is "
        "HF_ENDPOINT right, and no login page in between? If it is, remove "
        f"{constants.AGENT_HARNESSES_PATH}, which keeps a part of an earlier answer"
    )
