"""The plot: every table's bars in one SVG, written by hand. Shorter is better, but where requests a second are drawn."""

import html, pathlib

WIDTH, LABEL, VALUE = 860, 260, 90
BAR, GAP, HEAD, FOOT = 18, 6, 46, 18
COLOURS = ("#1f6f8b", "#99c2cf", "#d98e3f")
OTHERS = ("#6b6b6b", "#bdbdbd", "#8c7a5b")


def write(path, title, tables):
    """Draws those tables that name what to draw."""
    drawn, y = [], 40
    for table in tables:
        if table.bars:
            panel, height = draw(table, y)
            drawn.append(panel)
            y += height
    whole = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="13">',
             f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', text(16, 24, title, size=15, weight="bold"), *drawn, "</svg>"]
    pathlib.Path(path).write_text("\n".join(whole) + "\n")


def draw(table, top):
    """One panel, and how high it is."""
    rows = {name: [row.get(key) or 0 for key in table.bars] for name, row in table.rows.items()}
    longest = max((sum(values) for values in rows.values()), default=0) or 1
    titles = {key: title for key, title, _ in table.columns}
    digits = {key: digits for key, _, digits in table.columns}
    shown = " + ".join(titles[key] for key in table.bars)
    if table.ratio and table.ratio not in table.bars:
        shown = f"{titles[table.ratio]}: {shown}"
    parts = [text(16, top + 16, table.title, weight="bold"), text(16, top + 34, shown, fill="#555555")]
    y = top + HEAD
    for name, values in rows.items():
        # The gateway's own bars stand out.
        colours = COLOURS if name.startswith("tidegate") else OTHERS
        parts.append(text(LABEL - 8, y + 13, name, anchor="end"))
        x = LABEL
        for value, colour in zip(values, colours):
            width = value / longest * (WIDTH - LABEL - VALUE)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
            x += width
        parts.append(text(x + 6, y + 13, f"{sum(values):.{digits[table.bars[0]]}f}"))
        y += BAR + GAP
    return "\n".join(parts), y + FOOT - top


def text(x, y, words, size=13, weight="normal", anchor="start", fill="#222222"):
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{fill}">{html.escape(words)}</text>'
