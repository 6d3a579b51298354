"""What a bundle is scored on: people's messages in a file, and the vocabulary they are counted by."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.targets import EvaluationVocabulary
    from federated.population import Message


def load_vocabulary(bundle: Path, vocabulary: Path | None) -> "EvaluationVocabulary":
    """The vocabulary given, or that of the run in whose folder the bundle lies.

    Raises:
        ValueError: neither is there.
    """
    from eval.targets import EvaluationVocabulary

    if vocabulary is None:
        folders = [bundle, *bundle.resolve().parents]
        places = (folder / "tokenizer" / "vocabulary.txt" for folder in folders)
        vocabulary = next((path for path in places if path.is_file()), None)
        if vocabulary is None:
            raise ValueError(f"{bundle}: lies in no run's folder: give --vocabulary")
    if not vocabulary.is_file():
        raise ValueError(f"{vocabulary}: no such file: give --vocabulary")
    return EvaluationVocabulary.load(vocabulary)


def read_users(text: Path) -> "list[list[Message]]":
    """Messages of each user of a file, masked as the population is.

    JSONL and Parquet name their users. Plain text (.txt, .txt.gz) names none: each of its lines is a message of a user
    of its own, so that intervals say how figures vary with other such messages, and nothing about other people.

    Raises:
        ValueError: names the file, the line and the field.
    """
    from federated.population import Message, mask_pii, read_message_file
    from scripts.progress import say
    from synthetic_text.corpora import read_texts

    messages: Iterable[Message]
    is_plain = text.name.removesuffix(".gz").endswith(".txt")
    if is_plain:
        lines = enumerate(map(str.strip, read_texts(text)))
        messages = (Message(str(number), "", "", line) for number, line in lines if line)
    else:
        messages = read_message_file(text)
    users: dict[str, list[Message]] = {}
    for message in messages:
        masked = message._replace(text=mask_pii(message.text))
        users.setdefault(message.user, []).append(masked)
    if not users:
        raise ValueError(f"{text}: all lines are blank: give at least one message")
    if is_plain:
        say(f"{text}: plain text: each line counts as a user, intervals are over lines")
    return list(users.values())
