"""Jane Austen's six novels, from the R package janeaustenr, as chapters of whole paragraphs.

The text is public domain. The last two chapters of every novel are held out: no training, no tokenizer
and no choice of a checkpoint sees them. The chapter before those is for validation.

Run as a script, this writes the held-out text beside itself.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_FILE = Path(__file__).parent / "heldout.txt"
HELD_OUT_CHAPTERS = 2
VALIDATION_CHAPTERS = 1

INSTALL_HINT = "janeaustenr is missing: on Debian or Ubuntu, `apt-get install r-base-core r-cran-janeaustenr`"
# One line of output per line of text, with its novel in front: the six come as one data frame.
R_PROGRAM = 'b <- janeaustenr::austen_books(); cat(paste(b$book, b$text, sep = "\\t"), sep = "\\n")'

CHAPTER_HEADING = re.compile(r"chapter [0-9ivxlc]+\.?", re.IGNORECASE)
NOT_PROSE = re.compile(r"volume [0-9ivxlc]+\.?|finis\.?|the end\.?|end of .*", re.IGNORECASE)
ITALICS = re.compile(r"_([^_]*)_")

Chapter = list[str]
"""The paragraphs of one chapter, its heading first."""


@dataclass(frozen=True)
class Corpus:
    """Chapters by use, each in the order of the novels."""

    train: list[Chapter]
    validation: list[Chapter]
    held_out: list[Chapter]


def read_novels() -> dict[str, list[str]]:
    """The lines of every novel, by its title."""
    if shutil.which("Rscript") is None:
        raise SystemExit(INSTALL_HINT)
    ran = subprocess.run(["Rscript", "-e", R_PROGRAM], capture_output=True, encoding="utf-8", check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{INSTALL_HINT}\n{ran.stderr}")
    novels: dict[str, list[str]] = {}
    for line in ran.stdout.splitlines():
        title, _, text = line.partition("\t")
        novels.setdefault(title, []).append(text)
    return novels


def join_lines(lines: list[str]) -> str:
    """One paragraph out of hard-wrapped lines; a dash at the end of a line takes no space."""
    text = re.sub(r"-- ", "--", " ".join(line.strip() for line in lines))
    return ITALICS.sub(r"\1", re.sub(r"\s+", " ", text)).strip()


def split_paragraphs(lines: list[str]) -> list[str]:
    """Blank lines part paragraphs."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [join_lines(paragraph) for paragraph in paragraphs if paragraph]


def split_chapters(lines: list[str]) -> list[Chapter]:
    """Chapters numbered through the novel; title pages, volumes and the closing "FINIS" are left out."""
    chapters: list[Chapter] = []
    for paragraph in split_paragraphs(lines):
        if CHAPTER_HEADING.fullmatch(paragraph):
            chapters.append([f"Chapter {len(chapters) + 1}"])
        elif chapters and not NOT_PROSE.fullmatch(paragraph):
            chapters[-1].append(paragraph)
    return chapters


def load_corpus() -> Corpus:
    """The fixed split: of every novel the last chapters, and those before them."""
    corpus = Corpus([], [], [])
    end_of_validation = -HELD_OUT_CHAPTERS
    end_of_train = end_of_validation - VALIDATION_CHAPTERS
    for lines in read_novels().values():
        chapters = split_chapters(lines)
        corpus.train.extend(chapters[:end_of_train])
        corpus.validation.extend(chapters[end_of_train:end_of_validation])
        corpus.held_out.extend(chapters[end_of_validation:])
    return corpus


def as_text(chapters: list[Chapter]) -> str:
    """Chapters as one text, a blank line after every paragraph but the last."""
    return "\n\n".join("\n\n".join(chapter) for chapter in chapters)


def main() -> None:
    """Write the held-out text and print how large each part is."""
    corpus = load_corpus()
    HELD_OUT_FILE.write_text(as_text(corpus.held_out) + "\n", encoding="utf-8")
    for name in ("train", "validation", "held_out"):
        chapters: list[Chapter] = getattr(corpus, name)
        print(f"{name}: {len(chapters)} chapters, {len(as_text(chapters).encode()):,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
