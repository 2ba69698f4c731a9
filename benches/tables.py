"""Markdown tables."""


def cell(found, digits):
    """The median, and the lowest and highest."""
    if not found:
        return "–"
    middle, low, high = (f"{found[name]:,.{digits(found[name])}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low}–{high})" if len(found["values"]) > 1 else middle


def table(title, columns, rows):
    lines = [f"| {title} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())])
