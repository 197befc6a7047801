"""What is used of Presidio, imported without torch and transformers.

Presidio imports both where they are installed, for engines that are not used here. That takes 5 s in every process of a pool.
"""

import sys
from typing import Any, cast

_NOT_USED = [name for name in ("torch", "transformers") if name not in sys.modules]
cast("dict[str, Any]", sys.modules).update(dict.fromkeys(_NOT_USED))  # None: importing it raises ImportError
try:
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
    from presidio_analyzer.nlp_engine import NlpArtifacts, NoOpNlpEngine
    from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IbanRecognizer
finally:
    for _name in _NOT_USED:
        del sys.modules[_name]

__all__ = [
    "AnalyzerEngine",
    "CreditCardRecognizer",
    "EntityRecognizer",
    "IbanRecognizer",
    "NlpArtifacts",
    "NoOpNlpEngine",
    "RecognizerRegistry",
    "RecognizerResult",
]
