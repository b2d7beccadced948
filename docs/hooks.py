"""MkDocs hook: the cards of the shipped priors become pages of the site.

Each card lies beside its weights in `recon/priors/weights` and links from there to the documentation; pages link to it
by its place in the repository. Both kinds of link are rewritten for the site.
"""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "recon/priors/weights"


def on_files(files, config):
    """Add `cards/NAME.md` for each card."""
    for card in sorted((ROOT / WEIGHTS).glob("*.md")):
        text = card.read_text(encoding="utf-8").replace("](../../../docs/", "](../")
        files.append(File.generated(config, f"cards/{card.name}", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links to cards at their pages."""
    return markdown.replace(f"](../{WEIGHTS}/", "](cards/")
