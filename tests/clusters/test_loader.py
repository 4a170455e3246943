from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.auth.roles import ROLES
from hub_ext.clusters.document import images_schema, json_schema
from hub_ext.clusters.loader import images_of, load_cluster_profiles, parse_cluster_profile
from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile, Image, RmmPool
from hub_ext.clusters.policy import most_of_device
from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.document_reading import Known
from hub_ext.documents import parse_document
from hub_ext.profiles.model import Audience
from hub_ext.quota.document import load_policy
from tests.clusters.examples import AROUND, DIGEST, FOLDER, KNOWN, LEAST, RAPIDS, ROOT, TEXT, cluster_profile

POLICY = load_policy(ROOT / "policy" / "pools.yaml")
MEMORY = {name: gpu.memory for name, gpu in POLICY.gpu_classes.items()}


def test_a_file_becomes_a_profile_and_its_name_the_slug() -> None:
    assert parse_cluster_profile(TEXT, "gpu", AROUND) == ClusterProfile(
        slug="gpu",
        title={"en": "GPU workers", "ko": "GPU 워커"},
        description={"en": "For large data.", "ko": "큰 데이터를 다룹니다."},
        worker={"gpu.h200": 1000, "cpu": 8000, "memory": 98304},
        scheduler={"cpu": 1000, "memory": 4096},
        threads=2,
        order=30,
        audience=Audience(frozenset({"researcher"}), frozenset({"hangang-univ"})),
        rmm=RmmPool(65536, 122880),
        environment={"STACK": "rapids"},
        images=(RAPIDS,),
        most_workers=6,
        minutes=(60, 120, 240),
        default_minutes=120,
    )


def test_the_least_that_a_profile_needs() -> None:
    profile = parse_cluster_profile(LEAST, "x", AROUND)
    assert profile == ClusterProfile(
        slug="x",
        title={"en": "T"},
        description={"en": "D"},
        worker={"cpu": 1000, "memory": 1024},
        scheduler={"cpu": 1000, "memory": 1024},
        threads=1,
    )
    assert profile.gpu_class is None


@pytest.mark.parametrize(
    ("worker", "want"),
    [
        ("{cpu: 4, memory: 8Gi}", 4),
        ("{cpu: 500m, memory: 8Gi}", 1),
        ("{cpu: 3500m, memory: 8Gi}", 3),
        ("{cpu: 8, memory: 8Gi, gpu.h200: 1}", 1),
    ],
)
def test_threads_are_the_cores_and_one_with_a_gpu(worker: str, want: int) -> None:
    text = LEAST.replace("{cpu: 1, memory: 1Gi}", worker, 1)
    assert parse_cluster_profile(text, "x", AROUND).threads == want


@pytest.mark.parametrize(
    ("text", "want_line", "want_what", "want_instead"),
    [
        pytest.param("", 1, "the file is empty", "Write at least title, description, worker, scheduler.", id="an empty file"),
        pytest.param(TEXT.replace("threads:", "treads:"), 6, "treads is not a known setting", "Did you mean 'threads'?", id="a misspelt setting"),
        pytest.param(TEXT.replace("scheduler: {cpu: 1, memory: 4Gi}\n", ""), 2, "scheduler is missing", "Add 'scheduler'.", id="no scheduler"),
        pytest.param(TEXT.replace("cpu: 8, ", ""), 5, "worker: cpu is missing", "Add for example cpu: 2.", id="a worker without CPU"),
        pytest.param(TEXT.replace("cpu: 1, ", ""), 7, "scheduler: cpu is missing", "Add for example cpu: 2.", id="a scheduler without CPU"),
        pytest.param(TEXT.replace("memory: 96Gi", "memory: much"), 5, "worker.memory: 'much' is not an amount", "Write for example", id="not an amount"),
        pytest.param(TEXT.replace("gpu.h200: 1", "gpu.a100: 1"), 5, "worker.gpu.a100: there is no GPU class 'a100'", "Use one of: h200, h200-1g.", id="an unknown GPU class"),
        pytest.param(TEXT.replace("gpu.h200: 1", "gpu.h200: 2"), 5, "worker.gpu.h200: a worker is one process with one device", "Write 1, and ask for more workers.", id="two GPUs for one worker"),
        pytest.param(TEXT.replace("gpu.h200: 1", "gpu.h200: 500m"), 5, "worker.gpu.h200: a worker gets whole GPUs", "Write a whole number", id="half a GPU"),
        pytest.param(TEXT.replace("gpu.h200: 1", "gpu.h200: 1, gpu.h200-1g: 1"), 5, "worker: gpu.h200 and gpu.h200-1g come together", "A worker gets one device, keep one.", id="two classes for one worker"),
        pytest.param(TEXT.replace("scheduler: {", "scheduler: {gpu.h200: 1, "), 7, "scheduler.gpu.h200: a scheduler computes nothing on a GPU", "Remove it.", id="a scheduler with a GPU"),
        pytest.param(TEXT.replace("96Gi", "512Mi"), 5, "worker.memory: Dask does not come up in less than 1Gi", "Write at least 1Gi.", id="a worker with too little memory"),
        pytest.param(TEXT.replace("memory: 4Gi", "memory: 100Mi"), 7, "scheduler.memory: Dask does not come up", "Write at least 1Gi.", id="a scheduler with too little memory"),
        pytest.param(TEXT.replace("threads: 2", "threads: 0"), 6, "threads: input should be greater", "Found 0.", id="no threads"),
        pytest.param(TEXT.replace("gpu.h200: 1, ", ""), 8, "rmm: there is no GPU whose memory it could take", "Remove rmm.", id="RMM without a GPU"),
        pytest.param(TEXT.replace("pool: 64Gi", "pool: 121Gi"), 8, "rmm.pool: it begins with more than its maximum", "Write at most the maximum.", id="a pool larger than its maximum"),
        pytest.param(TEXT.replace("maximum: 120Gi", "maximum: 141Gi"), 8, "rmm.maximum: of 141Gi the driver and libraries need some", "Write at most 126336Mi.", id="a pool of the whole device"),
        pytest.param(TEXT.replace("maximum: 120Gi", "maximum: 0"), 8, "rmm.maximum: nothing of a resource", "Leave the resource out.", id="a pool of nothing"),
        pytest.param(TEXT.replace(", maximum: 120Gi", ""), 8, "rmm.maximum is missing", "Add 'maximum'.", id="a pool without bounds"),
        pytest.param(TEXT.replace("STACK:", "CUDA_VISIBLE_DEVICES:"), 9, "CUDA_VISIBLE_DEVICES is set by the hub or the system", "Remove it", id="a variable of the hub"),
        pytest.param(TEXT.replace("STACK:", "DASK_LOGGING__DISTRIBUTED:"), 9, "environment.DASK_LOGGING__DISTRIBUTED: the cluster sets it itself", "Remove it.", id="a variable of Dask"),
        pytest.param(TEXT.replace("[rapids]", "[rapid]"), 10, "images.0: there is no image 'rapid'", "Use one of: nightly, rapids.", id="an unknown image"),
        pytest.param(TEXT.replace("[rapids]", "[rapids, rapids]"), 10, "images: 'rapids' stands here twice", "Keep one", id="an image twice"),
        pytest.param(TEXT.replace("most_workers: 6", "most_workers: 0"), 11, "most_workers: input should be greater", "Found 0.", id="no workers"),
        pytest.param(TEXT.replace("most_workers: 6", "most_workers: 257"), 11, "most_workers: input should be less", "Found 257.", id="more workers than there may be"),
        pytest.param(TEXT.replace("default: 120", "default: 90"), 12, "minutes.default: 90 is not among the choices", "Write one of", id="a default length that is not offered"),
        pytest.param(TEXT.replace("[researcher]", "[pupil]"), 13, "for.roles.0: there is no role 'pupil'", "Use one of", id="an unknown role"),
        pytest.param("[" * 5000, 1, "this is not YAML: values are nested too deeply", "Mend", id="five thousand brackets"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_what_to_write_instead(
    text: str, want_line: int, want_what: str, want_instead: str
) -> None:
    with pytest.raises(FaultyDocument) as caught:
        parse_cluster_profile(text, "x", AROUND)
    first = caught.value.faults[0]
    assert (first.file, first.line) == ("x.yaml", want_line)
    assert want_what in first.what
    assert want_instead in first.instead


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200) | st.integers(0, len(TEXT)).map(lambda cut: TEXT[:cut]))
def test_any_text_is_a_profile_or_a_fault(text: str) -> None:
    faults = []
    try:
        profile = parse_cluster_profile(text, "x", AROUND)
    except FaultyDocument as error:
        faults = error.faults
    assert faults or profile.worker["memory"] >= 1024


# -- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        DIGEST,
        "hangang/notebook-rapids:26.10",
        "registry.example:5000/team/rapids:v1.2_3",
        f"rapids@sha256:{'f' * 64}",
    ],
)
def test_an_image_with_a_tag_or_a_digest(reference: str) -> None:
    document = parse_document(f'rapids: {{title: {{en: R, ko: 알}}, image: "{reference}"}}\n', "images.yaml")
    assert images_of(document) == {"rapids": Image("rapids", reference, {"en": "R", "ko": "알"})}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("rapids: {title: {en: R}, image: rapids}", "rapids.image: the image is not the same tomorrow. Give it a tag other than latest", id="no tag"),
        pytest.param("rapids: {title: {en: R}, image: 'rapids:latest'}", "the image is not the same tomorrow", id="latest"),
        pytest.param("rapids: {title: {en: R}, image: 'registry.example:5000/rapids'}", "the image is not the same tomorrow", id="a port is no tag"),
        pytest.param("rapids: {title: {en: R}, image: 'rapids@sha256:0a'}", "the image is not the same tomorrow", id="half a digest"),
        pytest.param("rapids: {title: {en: R}, image: 'a b:1'}", "'a b:1' is not the name of an image", id="a space"),
        pytest.param("rapids: {image: 'a:1'}", "rapids.title is missing", id="no title"),
        pytest.param("RAPIDS 26: {title: {en: R}, image: 'a:1'}", "'RAPIDS 26' is not a name", id="a name that is a title"),
        pytest.param("[a]", "the document: input should be", id="a list"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_offered(text: str, want: str) -> None:
    with pytest.raises(FaultyDocument) as caught:
        images_of(parse_document(text, "images.yaml"))
    assert want in str(caught.value)


def test_an_empty_list_of_images_is_none() -> None:
    assert images_of(parse_document("# none yet\n", "images.yaml")) == {}


# -- a folder -----------------------------------------------------------------------------------------------------


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def test_a_folder_is_read_in_the_order_of_the_menu_with_its_images(tmp_path: Path) -> None:
    files = {
        "gpu.yaml": TEXT,
        "cpu.yaml": LEAST + "order: 1\n",
        "images.yaml": f"rapids: {{title: {{en: RAPIDS}}, image: '{DIGEST}'}}\n",
        "schema.json": "{}",
    }
    found = load_cluster_profiles(folder(tmp_path, files), KNOWN, {})
    assert [profile.slug for profile in found] == ["cpu", "gpu"]
    assert found[1].images == (RAPIDS,)


@pytest.mark.parametrize(
    ("files", "want", "want_count"),
    [
        pytest.param({}, "there is no profile here. Add a file such as cpu.yaml.", 1, id="an empty folder"),
        pytest.param({"images.yaml": "x: {}"}, "x.title is missing", 3, id="only a faulty list of images"),
        pytest.param({"gpu.yaml": TEXT}, "gpu.yaml:10: images.0: there is no image 'rapids'. Use one of: none is known.", 1, id="no list of images"),
        pytest.param({"gpu.yaml": TEXT, "images.yaml": "["}, "images.yaml:1: this is not YAML", 1, id="with a faulty list of images only its faults are told"),
        pytest.param({"a.yaml": LEAST, "b.yaml": LEAST}, "b.yaml:1: title: a.yaml has the same title. Give each", 1, id="two that look the same"),
        pytest.param({"a.yaml": LEAST, "b.yaml": "[", "c.yml": ""}, "c.yml:1: profiles end in .yaml.", 2, id="the faults of all files"),
    ],
)  # fmt: skip
def test_a_faulty_folder(tmp_path: Path, files: dict[str, str], want: str, want_count: int) -> None:
    with pytest.raises(FaultyDocument) as caught:
        load_cluster_profiles(folder(tmp_path, files), KNOWN, {})
    assert want in str(caught.value)
    assert len(caught.value.faults) == want_count


def test_two_profiles_of_one_name_are_no_catalogue() -> None:
    with pytest.raises(BadInput, match="there are two profiles of clusters 'cpu'"):
        ClusterCatalogue.of([cluster_profile("cpu"), cluster_profile("cpu")])


# -- the clusters of this project ---------------------------------------------------------------------------------


def test_there_are_cpu_workers_slices_and_whole_gpus() -> None:
    known = Known(POLICY.gpu_classes, ROLES, POLICY.pools)
    found = {one.slug: one for one in load_cluster_profiles(FOLDER, known, MEMORY)}
    assert {slug: one.gpu_class for slug, one in found.items()} == {
        "cpu": None,
        "slice": "h200-1g",
        "gpu": "h200",
    }
    assert list(found) == ["cpu", "slice", "gpu"]
    for profile in found.values():
        assert set(profile.title) == set(profile.description) == {"en", "ko"}
        if profile.gpu_class is not None:
            assert profile.rmm is not None
            assert profile.rmm.maximum <= most_of_device(MEMORY[profile.gpu_class])


@pytest.mark.parametrize(
    ("name", "schema"), [("schema.json", json_schema(ROLES)), ("images.schema.json", images_schema())]
)
def test_the_schemas_for_editors_are_up_to_date(name: str, schema: object) -> None:
    """`REWRITE=1 pytest` writes them anew."""
    path = FOLDER / name
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_profile_names_the_schema_and_keeps_to_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with JupyterLab")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./schema.json\n")
    validator = jsonschema.Draft202012Validator(json_schema(ROLES))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("cpu: 8", "cpus: 8"),
        TEXT.replace("[researcher]", "[pupil]"),
        TEXT.replace("most_workers: 6", "most_workers: 600"),
        TEXT.replace("threads: 2", "threads: 0"),
        TEXT.replace(", maximum: 120Gi", ""),
        TEXT + "x: 1\n",
    ],
    ids=["resource", "role", "workers", "threads", "rmm", "setting"],
)
def test_the_schema_already_shows_in_an_editor_what_the_loader_would_refuse(text: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with JupyterLab")
    validator = jsonschema.Draft202012Validator(json_schema(ROLES))
    assert validator.is_valid(yaml.safe_load(TEXT))
    assert not validator.is_valid(yaml.safe_load(text))
