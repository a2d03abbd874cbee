"""Downloads, from archives on this disk in the layouts that torchvision expects."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import utils

import datasets
from datasets import prepare as module
from datasets.check import NAMES, check
from datasets.prepare import ELSEWHERE, TORCHVISION, PrepareError, main, prepare

pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter extracted tar")
STAND_INS = sorted(set(TORCHVISION) - {"Caltech101", "EuroSAT"})


@pytest.fixture(scope="session")
def archives(tmp_path_factory, stand_in_root):
    """A folder with the files that torchvision downloads of data sets in stand_in_root."""
    folder = tmp_path_factory.mktemp("archives")

    def tar(name, **members):
        with tarfile.open(folder / name, "w:gz") as archive:
            for arcname, path in members.items():
                archive.add(stand_in_root / path, arcname.replace("__", "/"))

    tar("images.tar.gz", images="oxford_pets/images")
    tar("annotations.tar.gz", annotations="oxford_pets/annotations")
    tar("102flowers.tgz", jpg="oxford_flowers/jpg")
    shutil.copy(stand_in_root / "oxford_flowers/imagelabels.mat", folder)
    savemat(folder / "setid.mat", {key: np.array([[1, 2]]) for key in ("trnid", "valid", "tstid")})
    tar("dtd-r1.0.1.tar.gz", dtd__images="dtd/images", dtd__labels="dtd/labels")

    own = tmp_path_factory.mktemp("more")
    for name in ("food-101", "fgvc_aircraft"):
        shutil.copytree(stand_in_root / name, own / name)
    (own / "food-101/meta/train.json").write_text(json.dumps({"waffles": []}))
    shutil.copy(
        own / "fgvc_aircraft/images_variant_train.txt",
        own / "fgvc_aircraft/images_variant_trainval.txt",
    )
    tar("food-101.tar.gz", **{"food-101": own / "food-101"})
    tar("fgvc-aircraft-2013b.tar.gz", **{"fgvc-aircraft-2013b__data": own / "fgvc_aircraft"})
    return folder


class Response(io.BytesIO):
    """What a server answers; with an error in place of its second half, if one is given."""

    def __init__(self, url, content, error=None):
        super().__init__(content[: len(content) // 2] if error else content)
        self.url, self.length, self.error = url, len(content), error

    def read(self, size=-1):
        chunk = super().read(size)
        if self.error and not chunk:
            raise self.error
        return chunk


@pytest.fixture
def downloads(archives, monkeypatch):
    """Let torchvision fetch from ``archives``; what it fetched is counted by name."""
    fetched = []

    def answer(request):
        if request.has_header("Method"):  # only asks whether the address has changed
            return Response(request.full_url, b"")
        name = os.path.basename(request.full_url)
        fetched.append(name)
        return Response(request.full_url, (archives / name).read_bytes())

    def matches(path, md5, **kwargs):
        return Path(path).read_bytes() == (archives / os.path.basename(path)).read_bytes()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(utils, "check_md5", matches)
    return fetched


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_download_is_laid_out_and_loads(
    downloads, stand_in_root, stand_ins, tmp_path, make_cfg, name, monkeypatch
):
    if name == "OxfordFlowers":  # the true list has 102 names
        monkeypatch.setattr("torchvision.datasets.Flowers102.classes", stand_ins[name][0])
    folder = Path(prepare(name, str(tmp_path)))
    cls = getattr(datasets, name)
    assert os.listdir(tmp_path) == [cls.dataset_dir] and folder == tmp_path / cls.dataset_dir
    assert files(folder) == files(stand_in_root / cls.dataset_dir)
    assert not [path for path in folder.rglob("*") if path.suffix in (".gz", ".tgz", ".zip")]
    dataset = cls(make_cfg(tmp_path))
    assert dataset.classnames == stand_ins[name][0]
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == stand_ins[name][1]
    assert not check(name, str(tmp_path)).problem


def test_eurosat(downloads, archives, real_root, tmp_path):
    with zipfile.ZipFile(archives / "EuroSAT.zip", "w") as archive:
        for path in (real_root / "eurosat/2750").glob("*/*_1*.jpg"):
            archive.write(path, path.relative_to(real_root / "eurosat"))
    folder = Path(prepare("EuroSAT", str(tmp_path)))
    assert sorted(os.listdir(folder)) == ["2750"] and len(os.listdir(folder / "2750")) == 10


def test_caltech101(downloads, archives, real_root, tmp_path):
    inner = tmp_path / "101_ObjectCategories.tar.gz"
    with tarfile.open(inner, "w:gz") as archive:
        for name in ("Faces", "BACKGROUND_Google"):  # torchvision wants to see the latter
            faces = real_root / "caltech-101/101_ObjectCategories/Faces"
            archive.add(faces, f"101_ObjectCategories/{name}")
    with zipfile.ZipFile(archives / "caltech-101.zip", "w") as archive:
        archive.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
    folder = Path(prepare("Caltech101", str(tmp_path / "root")))
    assert os.listdir(folder) == ["101_ObjectCategories"] and len(files(folder)) > 10


@pytest.fixture
def replaced(archives):
    """Write other archives; the true ones are put back."""
    before = {path: path.read_bytes() for path in archives.iterdir()}
    yield archives
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["../outside.txt", "{root}/outside.txt", "link"])
@pytest.mark.parametrize(
    ("dataset", "archive"),
    [("FGVCAircraft", "fgvc-aircraft-2013b.tar.gz"), ("OxfordPets", "images.tar.gz")],
)
def test_a_tar_archive_stays_in_its_folder(downloads, replaced, tmp_path, dataset, archive, name):
    with tarfile.open(replaced / archive, "w:gz") as file:
        member = tarfile.TarInfo(name.format(root=tmp_path))
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "../../.."
        file.addfile(member)
    with pytest.raises(PrepareError, match=f"{dataset} could not be downloaded"):
        prepare(dataset, str(tmp_path / "root"))
    assert os.listdir(tmp_path) == ["root"] and not list(tmp_path.rglob("link"))
    assert tarfile.TarFile.extraction_filter is None


def test_a_zip_archive_stays_in_its_folder(downloads, replaced, real_root, tmp_path):
    with zipfile.ZipFile(replaced / "EuroSAT.zip", "w") as archive:
        archive.writestr("../../../outside.txt", "")
        archive.writestr(f"{tmp_path}/outside.txt", "")
        for path in (real_root / "eurosat/2750").glob("*/*_1*.jpg"):
            archive.write(path, path.relative_to(real_root / "eurosat"))
    prepare("EuroSAT", str(tmp_path / "root"))
    assert os.listdir(tmp_path) == ["root"] and os.listdir(tmp_path / "root") == ["eurosat"]


def test_the_names_of_flowers_are_those_of_the_published_split(
    downloads, published_split, tmp_path
):
    prepare("OxfordFlowers", str(tmp_path))
    names = json.loads((tmp_path / "oxford_flowers/cat_to_name.json").read_text())
    published = {
        str(label + 1): name for _, label, name in published_split("OxfordFlowers")["test"]
    }
    assert names == published


def test_what_is_there_is_never_touched(downloads, tmp_path, capsys):
    folder = tmp_path / "oxford_pets"
    folder.mkdir()
    (folder / "mine").touch()
    assert main(["OxfordPets", "--root", str(tmp_path)]) == 1
    assert f"{folder} exists and is left as it is" in capsys.readouterr().err
    assert os.listdir(folder) == ["mine"] and not downloads


@pytest.mark.parametrize("moment", ["download", "extract", "rename"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("the network is gone")])
def test_an_interrupted_run_can_be_repeated(
    downloads, stand_in_root, tmp_path, monkeypatch, moment, stop
):
    with monkeypatch.context() as patch:
        if moment == "download":
            whole = urllib.request.urlopen

            def half(request):
                response = whole(request)
                if os.path.basename(request.full_url) == "annotations.tar.gz" and response.length:
                    return Response(response.url, response.read(), stop)
                return response

            patch.setattr(urllib.request, "urlopen", half)
        elif moment == "extract":

            def some(archive, target, *args, **kwargs):
                for name in ("images", "annotations"):
                    (Path(target) / name).mkdir()
                raise stop

            patch.setattr(tarfile.TarFile, "extractall", some)
        else:

            def refuse(source, target):
                raise stop

            patch.setattr(module.os, "rename", refuse)
        with pytest.raises((KeyboardInterrupt, PrepareError, OSError)):
            prepare("OxfordPets", str(tmp_path))
    assert not (tmp_path / "oxford_pets").exists()
    prepare("OxfordPets", str(tmp_path))
    assert files(tmp_path / "oxford_pets") == files(stand_in_root / "oxford_pets")
    assert os.listdir(tmp_path) == ["oxford_pets"]


def test_a_failed_download_says_so(downloads, archives, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(utils, "check_md5", lambda *args, **kwargs: False)
    assert main(["OxfordPets", "--root", str(tmp_path)]) == 1
    assert "OxfordPets could not be downloaded (File not found or corr" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_of_the_others_it_is_said_where_they_are(downloads, tmp_path, capsys, name):
    assert main([name, "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"{name} cannot be downloaded here" in message and "https://" in message
    assert str(tmp_path / getattr(datasets, name).dataset_dir) in message
    assert not downloads and not os.listdir(tmp_path)


def test_every_data_set_is_provided_for():
    generated = {name for name in NAMES if name.startswith(("Digits", "Characters"))}
    assert {*TORCHVISION, *ELSEWHERE, *generated} == set(NAMES)


def test_what_is_made_here_is_made(tmp_path, capsys):
    assert main(["DigitsInverted", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"DigitsInverted is in {tmp_path / 'digits_inverted'}\n"
    assert check("DigitsInverted", str(tmp_path)).found and check("Digits", str(tmp_path)).found


def test_the_published_split_is_pointed_to(downloads, tmp_path, capsys):
    assert main(["DescribableTextures", "--root", str(tmp_path)]) == 0
    assert "put split_zhou_DescribableTextures.json there, too" in capsys.readouterr().out
