"""The language of a sentence, by py3langid (extra `language`): a naive Bayes model inside the package, no network.

It guesses from the letters alone, well for long text and badly for a few words: it also drops some right sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from unsee_dist.errors import UserError


@lru_cache(maxsize=1)
def is_written_in(language: str) -> Callable[[str], bool]:
    """A test whether a sentence is in a language (ISO 639-1, as "en"). UserError for an unknown language."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if language not in identifier.labels:
        raise UserError(
            f"keep_language = {language} is not a language that py3langid knows. "
            f"Use one of {', '.join(sorted(identifier.labels))}."
        )
    return lambda sentence: identifier.classify(sentence)[0] == language
