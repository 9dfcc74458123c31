from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from callreel.engines import shelf
from callreel.engines.shelf import OnDisk, find, import_folder, present, remove
from callreel.errors import Conflict, InvalidInput, NotFound


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def hub_cache(folder: Path, repository: str, toy_model: Path, commit: str = "a" * 40) -> Path:
    """A cache as the hub's client lays it out."""
    base = folder / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    snapshot = base / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path in toy_model.iterdir():
        blob = base / "blobs" / path.name
        blob.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(blob)
    return snapshot


def test_what_the_hubs_own_client_has_is_found(
    toy_model: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    snapshot = hub_cache(cache, "Systran/faster-whisper-base", toy_model)
    assert find("base", models) is None
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    expected = OnDisk("base", snapshot, "hub cache")
    for name in ("base", "BASE", "Systran/faster-whisper-base"):
        assert find(name, models) == expected
    assert snapshot_download("Systran/faster-whisper-base", cache_dir=cache, local_files_only=True) == str(snapshot)
    assert present(models) == [expected]
    assert expected.size_bytes > 9_000_000
    (snapshot / "tokenizer.json").unlink()
    assert find("base", models) is None  # not whole


def test_a_cache_of_the_hubs_client_may_be_our_own_folder(toy_model: Path, models: Path) -> None:
    snapshot = hub_cache(models, "Systran/faster-whisper-tiny", toy_model)
    assert find("tiny", models) == OnDisk("tiny", snapshot, "hub cache")


def test_a_folder_is_taken_as_it_is(toy_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(str(toy_model), models) == OnDisk("whisper-toy", toy_model, "folder")
    monkeypatch.chdir(toy_model.parent)
    for name in ("./whisper-toy", "whisper-toy"):
        found = find(name, models)
        assert found is not None
        assert found.folder.resolve() == toy_model
    assert find("./no-such-folder", models) is None


def test_a_released_name_is_no_folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("small", models) is None
    assert find("./small", models) == OnDisk("small", Path("./small"), "folder")


@pytest.mark.parametrize("name", ["", "smal", "a b", "../x y", "a/b/c", "x\0y", "..", "é", "-x", "a" * 500])
def test_what_cannot_be_a_name(name: str, models: Path) -> None:
    if name == "../x y" or name == "..":  # folders, the second of which is there
        found = find(name, models)
        assert found is None or found.where == "folder"
        return
    with pytest.raises(InvalidInput, match="no Whisper model called") as caught:
        find(name, models)
    assert "small" in caught.value.hint


def test_an_import_is_used_by_its_name(toy_model: Path, models: Path) -> None:
    kept = import_folder(toy_model, models)
    assert kept == OnDisk("whisper-toy", models / "whisper-toy", "models")
    assert find("whisper-toy", models) == kept
    assert shelf.lacking(kept.folder) == []
    assert (kept.folder / "callreel.json").exists()
    assert kept.folder.joinpath("model.bin").read_bytes() == toy_model.joinpath("model.bin").read_bytes()
    import_folder(toy_model, models, "base")  # as a model that was fetched on another machine
    assert [model.name for model in present(models)] == ["base", "whisper-toy"]
    with pytest.raises(InvalidInput, match="'whisper-toy' is the nearest"):
        find("whispertoy", models)
    assert list((models / shelf.INCOMING).iterdir()) == []


def test_an_import_takes_no_space_twice(toy_model: Path, tmp_path: Path, models: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(toy_model, source)
    kept = import_folder(source, models)
    assert (kept.folder / "model.bin").samefile(source / "model.bin")
    shutil.rmtree(source)
    assert shelf.lacking(kept.folder) == []


def test_an_import_from_another_volume_is_copied(
    toy_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert shelf.lacking(import_folder(toy_model, models).folder) == []


def test_a_snapshot_can_be_imported(toy_model: Path, models: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "hub", "some/one", toy_model)
    kept = import_folder(snapshot, models, "mine")
    assert not (kept.folder / "model.bin").is_symlink()


def test_a_name_that_is_taken_is_kept(toy_model: Path, models: Path) -> None:
    import_folder(toy_model, models, "large")
    with pytest.raises(Conflict, match="large-v3"):
        import_folder(toy_model, models, "large-v3")
    assert [model.name for model in present(models)] == ["large-v3"]


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "x" * 200, "a\0b", "-x"])
def test_a_name_that_cannot_be(name: str, toy_model: Path, models: Path) -> None:
    with pytest.raises(InvalidInput, match="no name for a model"):
        import_folder(toy_model, models, name)
    assert not models.exists()


def test_what_is_no_model_is_not_imported(toy_model: Path, tmp_path: Path, models: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        import_folder(tmp_path / "none", models)
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(InvalidInput, match=r"lacks model\.bin and config\.json"):
        import_folder(source, models)
    shutil.copytree(toy_model, source, dirs_exist_ok=True)
    (source / "model.bin").write_bytes(b"\x06\0\0\0\x10\0TransformerSpec\0" + b"\0" * 100)
    with pytest.raises(InvalidInput, match="no Whisper weights"):
        import_folder(source, models)
    assert not models.exists()


def test_a_model_is_removed_and_its_source_stays(toy_model: Path, models: Path, tmp_path: Path) -> None:
    kept = import_folder(toy_model, models, "large")
    size = kept.size_bytes
    assert remove("large-v3", models) == size and not kept.folder.exists()
    assert present(models) == [] and not any((models / shelf.INCOMING).iterdir())
    assert (toy_model / "model.bin").is_file()
    with pytest.raises(NotFound, match="large"):
        remove("large", models)
    with pytest.raises(InvalidInput, match="no Whisper model"):
        remove("larch", models)
    with pytest.raises(InvalidInput, match="not among"):
        remove(str(toy_model), models)
