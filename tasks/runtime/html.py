"""Pages as HTML: one head, one style, and values always escaped."""

from jinja2 import Environment, Template

ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
td, th { border: 1px solid #ddd; padding: .2rem .6rem; text-align: left; vertical-align: top; overflow-wrap: break-word }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } svg { max-width: 100%; height: auto }
.better { color: #2b7a4b } .worse { color: #b3372f } .unclear { color: #666 } .warns { background: #fbe3e1 }
.pictures { overflow-x: auto }
@media (max-width: 44rem) {
body { font-size: 14px; margin: .5rem auto; padding: 0 .7rem } h1 { font-size: 1.4rem } h1, h2, h3, p, li, code { overflow-wrap: anywhere }
table { display: block; overflow-x: auto } .pictures > svg { max-width: none; width: 40rem }
}
"""  # on a phone and in a pane of MLflow's page wide things scroll by themselves, and the page does not


def page(title: str, body: str, *, style: str = "") -> Template:
    """A template of a whole page. ``title`` and ``body`` are Jinja sources; ``style`` is CSS that this page needs besides ``STYLE``."""
    return ENVIRONMENT.from_string(
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}{style}</style>
{body}</html>
"""
    )
