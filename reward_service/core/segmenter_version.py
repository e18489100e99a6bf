"""Which segmenter this is, by what it does: a library's release may move spans, or may leave all of them."""

import hashlib
from functools import cache

from reward_proto.score import Granularity
from reward_service.core.segment import SEGMENTER_VERSION, segment_text

PROBE = """\
Dr. J. R. R. Tolkien (b. 3 Jan. 1892) met Mrs. Smith, e.g. at 5 p.m. on No. 7 St. James St., i.e. near Acme Inc. \
and Co. in the U.S. of A. It cost approx. $3.14 vs. 2.718! "Stop. Now!" she said. 'Why?' he asked... Then silence. \
Really?! Yes. See Fig. 2, pp. 10-12, vol. 3 [1]. See also www.example.com/a.b?c=d. Mail a.b@example.org. \
Yahoo! is a firm. iPhone 5. v2.0 came. “One. Two.” Three… four (five. six.) seven. J.Doe et al. wrote it, cf. ch. 1. \
Ph.D. students, etc. Gov. Lee left.
1. First item. 2. Second item.
- A line without an end
* Another; it has no end either

A new paragraph.   Wide   blanks. 3.5 kg. A.M. no. The end.Next without a blank. ok then. LOUD. 😀 Smile! Done 🎉.
Prof. Meier kam am 3. Mai z. B. um 10 Uhr, d. h. spät. Das ist z.B. gut, bzw. usw. Nr. 5 „Halt. Jetzt!“ sagte er.
M. Dupont et Mme. Curie, p. ex. à 8 h., etc. « Oui. Non. » C'est fini. El Sr. García y la Dra. Ruiz, p. ej. \
¿Qué? ¡No! Ya.
Il sig. Rossi, ad es. oggi. De heer dr. Jansen, d.w.z. hij. O Sr. Silva, p. ex. ele. Pan mgr. Nowak, np. on, itd. Tak.
В 1999 г. и т. д. А. С. Пушкин, т. е. он. Да. Це т. зв. приклад. Ні. これはペンです。はい！いいえ？「そう。」終わり。
你好。很好！真的吗？“是。”完。 यह है। नहीं॥ हाँ। هذا جيد؟ نعم. لا۔ Այո։ Ոչ։ ሰላም። አዎ። မင်္ဂလာပါ။ ဟုတ်။ ខ្ញុំ។ བོད།
"""
"""Places where segmenters disagree: abbreviations, numbers, quotations, lists, marks of several scripts."""

_DIGEST_CHARS = 8

AS_TESTED = {
    "ar": "8c7a2341",
    "cs": "8feda798",
    "da": "75a96758",
    "de": "ba67ca8b",
    "el": "8c7a2341",
    "en": "5d865f2e",
    "es": "ec7f0c27",
    "fi": "37753fa2",
    "fr": "6811d3a1",
    "hi": "8c7a2341",
    "it": "fdb0cc11",
    "ja": "8c7a2341",
    "nl": "e821cf87",
    "pl": "1d46d4c0",
    "pt": "6eec70c3",
    "ru": "a43000a6",
    "uk": "eb82ccf7",
    "zh": "5d865f2e",
}
"""By language, the digest of the probe's sentences as the segmenter that `SEGMENTER_VERSION` names divides it.

A test compares them with the installed sentencex: where a release moves a span, raise `SEGMENTER_VERSION` and write the
new digests here.
"""


@cache
def segmenter_version(language: str) -> str:
    """What goes into a model's version: `SEGMENTER_VERSION` where the installed segmenter divides as the tested one.

    Where it does not, a digest of how it divides the probe follows. A language that was not tested is compared with
    English, which sentencex takes for what it does not know.

    Args:
        language: ISO 639 code, as for `segment_text`.
    """
    digest = probe_digest(language)
    return SEGMENTER_VERSION if digest == AS_TESTED.get(language, AS_TESTED["en"]) else f"{SEGMENTER_VERSION}-{digest}"


def probe_digest(language: str) -> str:
    """How the installed segmenter divides the probe into sentences."""
    spans = segment_text(PROBE, Granularity.SENTENCE, language)
    told = " ".join(f"{span.start}-{span.end}" for span in spans)
    return hashlib.sha256(told.encode()).hexdigest()[:_DIGEST_CHARS]
