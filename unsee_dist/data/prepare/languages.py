"""Languages: which one a sentence is in, by py3langid (extra `language`): a naive Bayes model it brings, no network.

A guess from the letters alone, good for text and poor for a few words: some right sentences are dropped as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from unsee_dist.errors import UserError


@lru_cache(maxsize=1)
def written_in(language: str) -> Callable[[str], bool]:
    """Whether a sentence is in a language (ISO 639-1, as "en"). ValueError for one that nobody can tell."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError(
            "--keep-language needs py3langid. Write `pip install 'unsee_dist[language]'`."
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if language not in identifier.labels:
        raise UserError(
            f"keep_language = {language} is none that can be told apart. "
            f"Use one of {', '.join(sorted(identifier.labels))}."
        )
    return lambda sentence: identifier.classify(sentence)[0] == language
