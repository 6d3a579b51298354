"""What a bundle is scored on: people's messages in a file, and the vocabulary they are counted by."""

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
    """Messages of each user of a JSONL or Parquet file, masked as the population is.

    Raises:
        ValueError: names the file, the line and the field.
    """
    from federated.population import mask_pii, read_message_file

    users: dict[str, list[Message]] = {}
    for message in read_message_file(text):
        masked = message._replace(text=mask_pii(message.text))
        users.setdefault(message.user, []).append(masked)
    return list(users.values())
