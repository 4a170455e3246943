from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_ext.auth.roles import ROLES
from hub_ext.core.errors import FaultyDocument
from hub_ext.profiles.document import json_schema
from hub_ext.profiles.loader import Known, load_profiles, parse_profile
from hub_ext.profiles.model import Audience, Choice, Option, Profile
from tests.profiles.examples import KNOWN, ROOT, TEXT

FOLDER = ROOT / "spawner_profiles"


def test_a_file_becomes_a_profile_and_its_name_the_slug() -> None:
    assert parse_profile(TEXT, "cpu-large", KNOWN) == Profile(
        slug="cpu-large",
        title={"en": "Large CPU server", "ko": "큰 CPU 서버"},
        description={"en": "For tables.", "ko": "표를 다룹니다."},
        amounts={"cpu": 16000, "memory": 65536},
        order=50,
        options=(
            Option(
                "memory",
                {"en": "Memory", "ko": "메모리"},
                (
                    Choice("64gb", {"en": "64 GB"}, default=True),
                    Choice("128gb", {"en": "128 GB"}, {"memory": 131072}),
                ),
            ),
        ),
        minutes=(60, 120, 240),
        default_minutes=120,
        audience=Audience(frozenset({"student"}), frozenset({"hangang-univ"})),
        environment={"THREADS": "16"},
    )


LEAST = "title: {en: T}\ndescription: {en: D}\nresources: {cpu: 1, memory: 1Gi}\n"


def test_the_least_that_a_profile_needs() -> None:
    profile = parse_profile(LEAST, "x", KNOWN)
    assert (profile.minutes, profile.default_minutes, profile.options, profile.order) == ((), None, (), 100)
    assert profile.audience == Audience()


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ("500m", {"cpu": 500, "memory": 1024}),
        ("0.0001", {"cpu": 1, "memory": 1024}),
        ("1.0005", {"cpu": 1001, "memory": 1024}),
        ("1e1", {"cpu": 10000, "memory": 1024}),
    ],
)
def test_asks_round_up(written: str, want: dict[str, int]) -> None:
    assert parse_profile(LEAST.replace("cpu: 1", f"cpu: {written}"), "x", KNOWN).amounts == want


def test_memory_rounds_up_to_whole_mebibytes() -> None:
    assert parse_profile(LEAST.replace("1Gi", "1G"), "x", KNOWN).amounts["memory"] == 954


def test_the_only_choice_is_the_default() -> None:
    text = LEAST + "options: {o: {title: {en: O}, choices: {a: {title: {en: A}}}}}\n"
    assert parse_profile(text, "x", KNOWN).options[0].default.name == "a"


def test_choices_and_options_keep_their_order_and_lengths_are_sorted() -> None:
    text = TEXT.replace("[60, 120, 240]", "[240, 60, 120]")
    profile = parse_profile(text, "x", KNOWN)
    assert profile.minutes == (60, 120, 240)
    assert [choice.name for choice in profile.options[0].choices] == ["64gb", "128gb"]


def test_a_description_may_be_folded_over_lines() -> None:
    text = LEAST.replace("description: {en: D}", "description:\n  en: >\n    Two\n    lines.\n")
    assert parse_profile(text, "x", KNOWN).description == {"en": "Two lines."}


def many_choices(names: int) -> str:
    return (
        "{"
        + ", ".join(f"c{i}: {{title: {{en: C{i}}}, default: {str(i == 0).lower()}}}" for i in range(names))
        + "}"
    )


def options(**choices: str) -> str:
    return "".join(
        f"  {name}:\n    title: {{en: {name}}}\n    choices: {text}\n" for name, text in choices.items()
    )


def with_options(**choices: str) -> str:
    return LEAST + "options:\n" + options(**choices)


@pytest.mark.parametrize(
    ("text", "want_line", "want_what", "want_instead"),
    [
        pytest.param("", 1, "the file is empty", "Write at least title", id="an empty file"),
        pytest.param("# nothing\n", 1, "the file is empty", "Write at least title", id="only a comment"),
        pytest.param(TEXT.replace("order:", "ordre:"), 4, "ordre is not a known setting", "Did you mean 'order'?", id="a misspelt setting"),
        pytest.param(TEXT.replace("order: 50\n", "order: 50\norder: 51\n"), 5, "'order' stands here twice", "Keep one", id="a setting twice"),
        pytest.param(TEXT.replace("en: Large CPU server, ", ""), 2, "title.en is missing", "Add 'en'.", id="no English title"),
        pytest.param(TEXT.replace("Large CPU server", "' '"), 2, "title.en: the text is empty", "Write one line", id="an empty title"),
        pytest.param(TEXT.replace("ko: 큰 CPU 서버", "fr: Serveur"), 2, "title.fr is not a known setting", "Known here: en, ko.", id="a language nobody reads"),
        pytest.param(TEXT.replace("order: 50", "order: -1"), 4, "order: input should be greater", "Found -1.", id="an order below zero"),
        pytest.param(TEXT.replace("order: 50", "order: true"), 4, "order: input should be a valid integer", "Found True.", id="an order that is true"),
        pytest.param(TEXT.replace("cpu: 16, ", ""), 5, "resources: cpu is missing", "Add for example cpu: 2.", id="no CPU"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: much"), 5, "resources.cpu: 'much' is not an amount", "Write for example 2", id="not an amount"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: -2"), 5, "resources.cpu: -2 is not an amount", "Write for example", id="an amount below zero"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: .nan"), 5, "resources.cpu: nan is not an amount", "Write for example", id="an amount that is NaN"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: yes"), 5, "resources.cpu: True is not an amount", "Write for example", id="an amount that is true"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: 0"), 5, "resources.cpu: nothing of a resource is not an amount", "Leave the resource out.", id="an amount of nothing"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: 64Gi"), 5, "resources.cpu: '64Gi' of cpu is more than any centre has", "Check the unit.", id="memory as CPU"),
        pytest.param(TEXT.replace("cpu: 16", "cpus: 16"), 5, "resources.cpus: 'cpus' is not a resource", "Use cpu, memory or gpu.CLASS.", id="an unknown resource"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: 16, gpu.a100: 1"), 5, "resources.gpu.a100: there is no GPU class 'a100'", "Use one of: h200, h200-1g.", id="an unknown GPU class"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: 16, gpu.h200: 500m"), 5, "resources.gpu.h200: a server gets whole GPUs", "Write a whole number", id="half a GPU"),
        pytest.param(TEXT.replace("cpu: 16", "cpu: 16, gpu.h200: 1, gpu.h200-1g: 1"), 6, "resources: gpu.h200 and gpu.h200-1g come together", "A server gets one class", id="two GPU classes"),
        pytest.param(TEXT.replace("128Gi", "128Gi, gpu.a100: 1"), 15, "options.memory.choices.128gb.resources.gpu.a100: there is no GPU class 'a100'", "Use one of", id="an unknown GPU class in a choice"),
        pytest.param(TEXT.replace("{memory: 128Gi}", "{memory: lots}"), 15, "options.memory.choices.128gb.resources.memory: 'lots' is not an amount", "Write", id="not an amount in a choice"),
        pytest.param(TEXT + "        default: true\n", 19, "this is not YAML", "Mend the syntax here.", id="wrong indentation"),
        pytest.param(TEXT.replace("128Gi}", "128Gi}\n        default: true"), 16, "options.memory.choices.128gb.default: 64gb is the default already", "Keep one of the two.", id="two defaults"),
        pytest.param(TEXT.replace("        default: true\n", ""), 9, "options.memory.choices: no choice is the default", "Add default: true to one of them.", id="no default"),
        pytest.param(with_options(o="{}"), 7, "options.o.choices: there is nothing to choose", "Add a choice, or remove the option.", id="no choice"),
        pytest.param(LEAST + "options: {o: {title: {en: O}}}\n", 4, "options.o.choices is missing", "Add 'choices'.", id="an option without choices"),
        pytest.param(TEXT.replace("en: 128 GB", "en: 64 GB"), 14, "options.memory.choices.128gb.title: 64gb has the same title", "Give each its own.", id="two choices with one title"),
        pytest.param(with_options(minutes="{a: {title: {en: A}}}"), 5, "options.minutes: 'minutes' is what every profile has already", "Give the option another name.", id="an option named minutes"),
        pytest.param(with_options(pool="{a: {title: {en: A}}}"), 5, "options.pool: 'pool' is what", "Give", id="an option named pool"),
        pytest.param(with_options(profile="{a: {title: {en: A}}}"), 5, "options.profile: 'profile' is what", "Give", id="an option named profile"),
        pytest.param(with_options(**{"a--b": "{a: {title: {en: A}}}"}), 5, "options.a--b: 'a--b' is not a name", "Use at most 40", id="an option whose name the form could not tell apart"),
        pytest.param(TEXT.replace("64gb:", "64 GB:"), 10, "options.memory.choices.64 GB: '64 GB' is not a name", "Use at most 40", id="a choice whose name is a title"),
        pytest.param(with_options(a=many_choices(5), b=many_choices(5)), 4, "options: 25 combinations of choices are too many", "Offer at most 24.", id="25 combinations"),
        pytest.param(
            with_options(a="{x: {title: {en: X}, resources: {memory: 2Gi}}}", b="{y: {title: {en: Y}, resources: {memory: 3Gi}}}"),
            8, "options.b: the option a sets memory too", "Let only one of them set it.", id="two options that set one resource",
        ),
        pytest.param(
            with_options(a="{x: {title: {en: X}, environment: {A: '1'}}}", b="{y: {title: {en: Y}, environment: {A: '2'}}}"),
            8, "options.b: the option a sets A too", "Let only one of them set it.", id="two options that set one variable",
        ),
        pytest.param(
            with_options(a="{x: {title: {en: X}, resources: {gpu.h200: 1}}}", b="{y: {title: {en: Y}, resources: {gpu.h200-1g: 1}}}"),
            4, "resources: gpu.h200 and gpu.h200-1g come together", "A server gets one class", id="two GPU classes from two options",
        ),
        pytest.param(TEXT.replace("default: 120", "default: 90"), 16, "minutes.default: 90 is not among the choices", "Write one of: 60, 120, 240.", id="a default length that is not offered"),
        pytest.param(TEXT.replace("[60, 120, 240]", "[]"), 16, "minutes.choices: there is no length to choose", "Add some, or remove minutes.", id="no length"),
        pytest.param(TEXT.replace("[60, 120, 240]", "[60, 120, 60]"), 16, "minutes.choices: 60 stands here twice", "Keep one", id="a length twice"),
        pytest.param(TEXT.replace("[60, 120, 240]", "[0, 120]"), 16, "minutes.choices.0: input should be greater", "Found 0.", id="a length of nothing"),
        pytest.param(TEXT.replace("[60, 120, 240]", '["60", 120]'), 16, "minutes.choices.0: input should be a valid integer", "Found '60'.", id="a length as text"),
        pytest.param(TEXT.replace("[student]", "[pupil]"), 17, "for.roles.0: there is no role 'pupil'", "Use one of: instructor, lead, operator, researcher, student.", id="an unknown role"),
        pytest.param(TEXT.replace("[hangang-univ]", "[mars-univ]"), 17, "for.pools.0: there is no pool 'mars-univ'", "Use one of: hangang-univ, seoul.", id="an unknown pool"),
        pytest.param(TEXT.replace("[student]", "[]"), 17, "for.roles: nobody could see the profile", "Add a role, or remove roles.", id="a profile for nobody"),
        pytest.param(TEXT.replace("[student]", "[student, student]"), 17, "for.roles: 'student' stands here twice", "Keep one", id="a role twice"),
        pytest.param(TEXT.replace("THREADS:", "2THREADS:"), 18, "environment.2THREADS: '2THREADS' is not the name of a variable", "Use letters, digits and _.", id="not the name of a variable"),
        pytest.param(TEXT.replace('"16"', "16"), 18, "environment.THREADS: 16 is not a text", 'Write it in quotes, for example "4".', id="a number as a variable's value"),
        pytest.param(TEXT.replace('"16"', '"1\\u0000"'), 18, "environment.THREADS: the text is longer", "Write plain text.", id="a variable with a zero byte"),
        pytest.param(LEAST + "teaching: maybe\n", 4, "teaching: input should be a valid boolean", "Found 'maybe'.", id="teaching maybe"),
        pytest.param(LEAST + "image: a b\n", 4, "image: 'a b' is not the name of an image", "Write for example", id="an image with a space"),
        pytest.param(LEAST + "a: *b\n", 4, "this is not YAML: aliases (*name) are not supported", "Mend", id="an alias"),
        pytest.param(LEAST + "order: 9999-99-99\n", 4, "a value cannot be read", "Write it as a quoted text.", id="a date that is none"),
        pytest.param(LEAST + "image: \x00\n", 4, "this is not YAML: unacceptable character", "Mend", id="a zero byte"),
        pytest.param(LEAST + "image: !!python/name:os.system\n", 4, "this is not YAML: tags (!name) are not supported", "Mend", id="a tag"),
        pytest.param("[1, 2]\n", 1, "the document: input should be", "Found [1, 2].", id="a list"),
        pytest.param("[" * 5000, 1, "this is not YAML: values are nested too deeply", "Mend", id="five thousand brackets"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_what_to_write_instead(
    text: str, want_line: int, want_what: str, want_instead: str
) -> None:
    with pytest.raises(FaultyDocument) as caught:
        parse_profile(text, "x", KNOWN)
    first = caught.value.faults[0]
    assert (first.file, first.line) == ("x.yaml", want_line)
    assert want_what in first.what
    assert want_instead in first.instead


@pytest.mark.parametrize(
    "name",
    [
        *(
            "JUPYTERHUB_API_TOKEN",
            "HUB_EXT_LEASE",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "PATH",
            "HOME",
        ),
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "KUBERNETES_SERVICE_HOST", "MEM_LIMIT"),
    ],
)
@pytest.mark.parametrize("place", ["profile", "choice"])
def test_what_the_hub_or_the_system_sets_is_no_profiles_to_change(name: str, place: str) -> None:
    text = (
        TEXT.replace("THREADS", name)
        if place == "profile"
        else TEXT.replace("128Gi}", f"128Gi}}\n        environment: {{{name}: x}}")
    )
    with pytest.raises(
        FaultyDocument, match=f"{name} is set by the hub or the system. Remove it or choose another"
    ):
        parse_profile(text, "x", KNOWN)


@pytest.mark.parametrize("name", ["HOMES", "MY_PATH", "OMP_NUM_THREADS", "path", "NVIDIA_TF32_OVERRIDE"])
def test_other_variables_are_free(name: str) -> None:
    assert parse_profile(TEXT.replace("THREADS", name), "x", KNOWN).environment == {name: "16"}


def test_every_fault_of_a_file_is_named_at_once() -> None:
    text = (
        TEXT.replace("cpu: 16", "gpu.a100: 500m")
        .replace("[student]", "[pupil]")
        .replace("default: 120", "default: 1")
    )
    with pytest.raises(FaultyDocument) as caught:
        parse_profile(text, "x", KNOWN)
    assert [fault.line for fault in caught.value.faults] == [5, 5, 5, 16, 17]


def test_twenty_four_combinations_are_still_shown() -> None:
    assert len(parse_profile(with_options(a=many_choices(4), b=many_choices(6)), "x", KNOWN).options) == 2


def test_without_the_policy_at_hand_any_pool_is_accepted() -> None:
    known = Known(KNOWN.gpu_classes, KNOWN.roles)
    assert parse_profile(TEXT.replace("hangang-univ", "mars-univ"), "x", known).audience.pools == {
        "mars-univ"
    }


# -- folders ------------------------------------------------------------------------------------------------------


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def titled(title: str, order: int = 100) -> str:
    return LEAST.replace("en: T", f"en: {title}") + f"order: {order}\n"


def test_a_folder_is_read_in_the_order_of_the_start_page(tmp_path: Path) -> None:
    files = {
        "b.yaml": titled("B", 1),
        "a.yaml": titled("A", 2),
        "schema.json": "{}",
        ".a.yaml.swp": "x",
        "notes.md": "x",
    }
    assert [profile.slug for profile in load_profiles(folder(tmp_path, files), KNOWN)] == ["b", "a"]


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({}, ":1: there is no profile here. Add a file such as cpu-small.yaml.", id="an empty folder"),
        pytest.param({"notes.md": "x"}, ":1: there is no profile here.", id="a folder without profiles"),
        pytest.param({"a.yml": LEAST}, "a.yml:1: profiles end in .yaml. Rename it to a.yaml.", id="the other ending"),
        pytest.param({"CPU Large.yaml": LEAST}, "the file's name: 'CPU Large' is not a name. Use at most 40", id="a file's name that is no slug"),
        pytest.param({"a--b.yaml": LEAST}, "the file's name: 'a--b' is not a name", id="a file's name that the form could not tell apart"),
        pytest.param({f"{'a' * 41}.yaml": LEAST}, "is not a name. Use at most 40", id="a file's name too long"),
        pytest.param({"a.yaml": LEAST, "b.yaml": LEAST}, "b.yaml:1: title: a.yaml has the same title. Give each", id="two cards that look the same"),
    ],
)  # fmt: skip
def test_a_faulty_folder(tmp_path: Path, files: dict[str, str], want: str) -> None:
    with pytest.raises(FaultyDocument) as caught:
        load_profiles(folder(tmp_path, files), KNOWN)
    assert want in str(caught.value)
    assert str(tmp_path) in caught.value.faults[0].file


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaultyDocument, match="the folder of profiles cannot be read"):
        load_profiles(tmp_path / "gone", KNOWN)


def test_a_folder_that_is_named_like_a_profile_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(FaultyDocument, match="the file cannot be read"):
        load_profiles(tmp_path, KNOWN)


def test_the_faults_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    files = {"a.yaml": LEAST + "x: 1\n", "b.yaml": LEAST, "c.yaml": "[", "d.yml": ""}
    with pytest.raises(FaultyDocument) as caught:
        load_profiles(folder(tmp_path, files), KNOWN)
    assert sorted(Path(fault.file).name for fault in caught.value.faults) == ["a.yaml", "c.yaml", "d.yml"]


# -- whatever comes in --------------------------------------------------------------------------------------------


def profile_or_faults(text: str) -> None:
    profile, faults = None, []
    try:
        profile = parse_profile(text, "x", KNOWN)
    except FaultyDocument as error:
        faults = error.faults
    if profile is None:
        assert faults
        assert all(
            fault.what and fault.instead and 1 <= fault.line <= len(text.splitlines()) + 2 for fault in faults
        )
    else:
        assert all(option.default for option in profile.options)
        assert all(amount > 0 for amount in profile.amounts.values())
        assert not profile.minutes or profile.default_minutes in profile.minutes


@given(st.text(max_size=200))
def test_any_text_is_a_profile_or_faults(text: str) -> None:
    profile_or_faults(text)


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "\n",
        "  ",
        "&a",
        "*a",
        "!!int ",
        "? ",
        "<<: ",
        "|",
        ">",
        "'",
        '"',
        "#",
        "%",
        "---\n",
        "...",
    ]
) | st.text(max_size=4)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_good_file_with_some_of_it_overwritten_is_a_profile_or_faults(data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + "".join(data.draw(st.lists(PIECES, max_size=4))) + text[end:]
    profile_or_faults(text)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["64Gi", "1", "h200"])
)
KEYS = st.text(max_size=6) | st.sampled_from(
    [
        *(
            "en",
            "ko",
            "title",
            "choices",
            "default",
            "cpu",
            "memory",
            "gpu.h200",
            "gpu.h200-1g",
            "roles",
            "pools",
        ),
        *("resources", "environment", "minutes", "64gb"),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_good_file_with_any_value_in_place_of_one_is_a_profile_or_faults(data: st.DataObject) -> None:
    whole = yaml.safe_load(TEXT)
    inside = whole
    while True:
        key = data.draw(
            st.sampled_from(sorted(inside)) if isinstance(inside, dict) else st.integers(0, len(inside) - 1)
        )
        if isinstance(inside[key], dict | list) and inside[key] and data.draw(st.booleans()):
            inside = inside[key]
            continue
        inside[key] = data.draw(VALUES)
        break
    profile_or_faults(yaml.safe_dump(whole, allow_unicode=True))


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_a_file_are_profiles_or_faults(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(FaultyDocument):
        load_profiles(tmp_path, KNOWN)


# -- the profiles of this project ----------------------------------------------------------------------------------


def test_the_schema_for_editors_is_up_to_date() -> None:
    """`REWRITE=1 pytest` writes it anew."""
    path = FOLDER / "schema.json"
    text = json.dumps(json_schema(ROLES), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_profile_names_the_schema_and_keeps_to_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with JupyterLab")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./schema.json\n")
    validator = jsonschema.Draft202012Validator(
        json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    )
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("cpu: 16", "cpus: 16"),
        TEXT.replace("[student]", "[pupil]"),
        TEXT + "x: 1\n",
        TEXT.replace("64gb:", "64 GB:"),
    ],
    ids=["resource", "role", "setting", "name"],
)
def test_the_schema_already_shows_in_an_editor_what_the_loader_would_refuse(text: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with JupyterLab")
    validator = jsonschema.Draft202012Validator(json_schema(ROLES))
    assert validator.is_valid(yaml.safe_load(TEXT))
    assert not validator.is_valid(yaml.safe_load(text))
