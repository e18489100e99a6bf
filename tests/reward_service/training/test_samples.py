from pathlib import Path

from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.domain import TextItem
from reward_service.registry.store import Store
from reward_service.training.samples import fitting_items, read_text_items, sample_items, write_text_items


def test_items_survive_a_file(tmp_path: Path) -> None:
    items = [TextItem("p", "one\n🎉 \u2028 two", {"q": 'a "b"'}), TextItem("", "", {})]
    write_text_items(tmp_path / "x.jsonl", items)
    assert read_text_items(tmp_path / "x.jsonl") == items


def test_a_trained_model_brings_its_own_texts(trained: tuple[Path, Path]) -> None:
    items = sample_items(Store(trained[1]).resolve("factuality"))
    assert len(items) == 64
    assert set(items[0].fields) == {"question", "context"}


def test_what_fits_is_encoded(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("factuality")
    manifest = published.manifest
    encoder = InputEncoder(published.load_tokenizer(), InputSpec(manifest.template, (manifest.kind,), 30, None))
    fields = {"question": "what", "context": "thing"}
    texts = ["It is red. It is.", "", "it " * 40]
    kept, encoded = fitting_items([TextItem("", text, fields) for text in texts], manifest, encoder)
    assert [item.response for item in kept] == texts[:1]
    assert [len(item.reads[0].spans) for item in encoded] == [2]
    assert manifest.granularity is Granularity.SENTENCE
