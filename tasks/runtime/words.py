"""Durations in words, as every message of a stage gives them."""


def duration(seconds: float) -> str:
    """``40 s``, ``2 min 20 s``, ``1 h 5 min``: whole numbers, as exact as a reader needs."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(round(whole / 10) * 10, 60)
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    minutes = round(whole / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if minutes < 90 else f"{hours} h" + (f" {rest} min" if rest else "")
