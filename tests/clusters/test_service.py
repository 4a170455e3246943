"""The menu and a choice, with the example centre's own quota behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hub_ext.auth.policy import person_of
from hub_ext.auth.roles import ROLES
from hub_ext.clusters.loader import load_cluster_profiles
from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.clusters.service import Clusters
from hub_ext.core.decision import Admit, Code, Refuse
from hub_ext.core.errors import FaultyDocument
from hub_ext.core.untrusted import BadSelection
from hub_ext.document_reading import Known
from hub_ext.factory import Factory, load_documents
from hub_ext.profiles.model import Audience
from hub_ext.quota.model import SERVER, Ask
from tests.clusters.examples import CPU, DIGEST, FOLDER, GPU, LEAST, RAPIDS, SLICE, TEXT, cluster_profile
from tests.support.state import example_files

RESEARCHERS = replace(GPU, audience=Audience(roles=frozenset({"researcher"})))
VISION = cluster_profile("vision", order=40, audience=Audience(pools=frozenset({"hangang-vision"})))
CATALOGUE = ClusterCatalogue.of([CPU, SLICE, RESEARCHERS, VISION])
NAME = "0123456789abcdef0123456789abcdef"


def image_of(profile: str | None) -> str:
    return "hangang/notebook-rapids:26.10" if profile == "h200" else "hangang/notebook:dev"


def with_people(made: Factory) -> Factory:
    for name in made.documents.identity.people:
        person = person_of(made.documents.identity, name)
        assert person is not None
        made.admission.put_person(person)
    return made


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return with_people(example_files(tmp_path).upgraded())


@pytest.fixture
def clusters(factory: Factory) -> Clusters:
    return Clusters(factory.admission, CATALOGUE, image_of)


def leases(factory: Factory) -> int:
    with factory.store.reading() as txn:
        return len(txn.all_leases())


# -- a choice -----------------------------------------------------------------------------------------------------


async def test_a_choice_becomes_a_scheduler_and_a_unit(clusters: Clusters) -> None:
    chosen = await clusters.choose(
        "student", {"profile": "cpu", "environment": {"A": "1"}, "idle_minutes": 10}
    )
    assert chosen.scheduler == Ask(
        id=chosen.name,
        person="student",
        pool="hangang-univ",
        amounts=CPU.scheduler,
        kind="dask-scheduler",
        profile="cpu",
        minutes=120,
        server=chosen.name,
    )
    assert chosen.unit == replace(chosen.scheduler, kind="dask-worker", amounts=CPU.worker)
    assert (chosen.image, chosen.selection.idle_minutes) == ("hangang/notebook:dev", 10)
    assert await clusters.choose("student", chosen.options) != chosen  # another cluster each time
    assert (await clusters.choose("student", chosen.options)).selection == chosen.selection


async def test_a_cluster_has_the_gateways_name(clusters: Clusters) -> None:
    chosen = (await clusters.choose("student", {})).named(NAME)
    assert (chosen.name, chosen.scheduler.id, chosen.scheduler.server, chosen.unit.server) == (NAME,) * 4


async def test_without_a_length_the_profiles_or_the_pools_counts(clusters: Clusters) -> None:
    assert (await clusters.choose("student", {"profile": "cpu", "minutes": 60})).scheduler.minutes == 60
    assert (await clusters.choose("student", {"profile": "slice"})).scheduler.minutes is None


async def test_the_first_pool_from_which_they_may_is_taken(clusters: Clusters) -> None:
    assert (await clusters.choose("researcher", {"profile": "vision"})).unit.pool == "hangang-vision"
    assert (await clusters.choose("researcher", {"profile": "cpu"})).unit.pool == "hangang-univ"


@pytest.mark.parametrize(
    ("person", "options", "want"),
    [
        pytest.param("student", {"profile": "gpu"}, Code.PROFILE_NOT_ALLOWED, id="not meant for them"),
        pytest.param("student", {"profile": "cpu", "pool": "public"}, Code.NOT_A_MEMBER, id="not their pool"),
        pytest.param("student", {"profile": "cpu", "pool": "nowhere"}, Code.NOT_A_MEMBER, id="no such pool"),
        pytest.param("nobody", {"profile": "cpu"}, Code.NOT_A_MEMBER, id="nobody whom the table of people knows"),
    ],
)  # fmt: skip
async def test_whether_they_may_is_the_quotas_to_say(
    clusters: Clusters, factory: Factory, person: str, options: object, want: Code
) -> None:
    chosen = (await clusters.choose(person, options)).named(NAME)
    answer = await factory.admission.start_cluster(chosen.person, chosen.scheduler, chosen.options)
    assert isinstance(answer.decision, Refuse)
    assert answer.decision.code is want


async def test_what_does_not_exist_is_refused_in_words(clusters: Clusters) -> None:
    with pytest.raises(BadSelection, match=r"There is no cluster 'huge' for you\. Choose one of: cpu, slice"):
        await clusters.choose("student", {"profile": "huge"})


# -- in which image -----------------------------------------------------------------------------------------------


async def start_server(factory: Factory, person: str, server: str, profile: str) -> None:
    options = {"profile": profile, "minutes": 60}
    chosen = await factory.profiles.choose(person, server, options)
    answer = await factory.admission.admit(chosen.person, chosen.ask)
    assert isinstance(answer.decision, Admit)
    assert answer.lease is not None
    assert answer.lease.kind == SERVER


async def test_a_cluster_runs_what_the_server_runs_that_it_belongs_to(
    clusters: Clusters, factory: Factory
) -> None:
    await start_server(factory, "lead", "", "cpu-small")
    await start_server(factory, "lead", "with gpu", "h200")
    for server, want in (("", None), ("with gpu", "h200")):
        chosen = await clusters.choose("lead", {"server": server})
        assert chosen.image == image_of(want)
        assert chosen.selection.server == server


async def test_a_chosen_image_counts_more(clusters: Clusters, factory: Factory) -> None:
    await start_server(factory, "lead", "", "h200")
    chosen = await clusters.choose("lead", {"profile": "slice", "image": "rapids", "server": ""})
    assert chosen.image == RAPIDS.reference


@pytest.mark.parametrize("server", ["", "gone", "of-somebody-else"])
async def test_a_server_that_does_not_run_or_is_not_theirs_has_no_cluster(
    clusters: Clusters, factory: Factory, server: str
) -> None:
    await start_server(factory, "lead", "of-somebody-else", "cpu-small")
    with pytest.raises(BadSelection, match=r"You have no server '.*' that runs\. Start it first") as caught:
        await clusters.choose("student", {"server": server})
    assert caught.value.field == "server"


# -- the menu -----------------------------------------------------------------------------------------------------


async def test_the_menu_shows_each_size_in_each_of_their_pools(clusters: Clusters) -> None:
    menu = await clusters.menu("researcher")
    assert [(offer.profile.slug, offer.pool) for offer in menu.offers] == [
        *(("cpu", "hangang-univ"), ("cpu", "hangang-vision")),
        *(("slice", "hangang-univ"), ("slice", "hangang-vision")),
        *(("gpu", "hangang-univ"), ("gpu", "hangang-vision")),
        ("vision", "hangang-vision"),
    ]
    assert menu.hidden == ()


async def test_the_menu_tells_what_is_for_others(clusters: Clusters) -> None:
    menu = await clusters.menu("student")
    assert {offer.profile.slug for offer in menu.offers} == {"cpu", "slice"}
    assert [profile.slug for profile in menu.hidden] == ["gpu", "vision"]
    assert (await clusters.menu("nobody")).offers == ()


async def test_the_menu_books_nothing_and_what_it_shows_is_granted(
    clusters: Clusters, factory: Factory
) -> None:
    menu = await clusters.menu("researcher")
    assert leases(factory) == 0
    offer = next(one for one in menu.offers if (one.profile.slug, one.pool) == ("gpu", "hangang-vision"))
    assert isinstance(offer.preview.scheduler, Admit)
    chosen = (await clusters.choose("researcher", {"profile": "gpu", "pool": offer.pool})).named(NAME)
    await factory.admission.start_cluster(chosen.person, chosen.scheduler, chosen.options)
    granted = await factory.admission.grant(NAME, chosen.person, chosen.unit, offer.profile.most_workers, ())
    assert offer.preview.guaranteed > 0
    assert sum(lease.guaranteed for lease in granted.leases) == offer.preview.guaranteed
    assert sum(not lease.guaranteed for lease in granted.leases) == offer.preview.borrowed
    assert (granted.objection is None) == (offer.preview.objection is None)


# -- where they come from -----------------------------------------------------------------------------------------


def folder_with_images(path: Path) -> str:
    path.mkdir()
    (path / "gpu.yaml").write_text(TEXT)
    (path / "images.yaml").write_text(f"rapids: {{title: {{en: RAPIDS}}, image: '{DIGEST}'}}\n")
    return path.name


async def test_on_one_machine_a_cluster_runs_in_no_image(tmp_path: Path) -> None:
    files = example_files(tmp_path, cluster_profiles=folder_with_images(tmp_path / "clusters"))
    factory = with_people(files.upgraded())
    assert factory.documents.clusters.profiles[0].images == (RAPIDS,)
    assert factory.clusters.catalogue.profiles[0].images == ()
    assert (await factory.clusters.choose("researcher", {})).image is None


async def test_as_pods_a_cluster_runs_what_servers_run_or_what_was_chosen(tmp_path: Path) -> None:
    files = example_files(
        tmp_path,
        cluster_profiles=folder_with_images(tmp_path / "clusters"),
        run_on="kubernetes",
        kubernetes={"image": "hangang/notebook:26.10"},
    )
    factory = with_people(files.upgraded())
    assert (await factory.clusters.choose("researcher", {})).image == "hangang/notebook:26.10"
    assert (await factory.clusters.choose("researcher", {"image": "rapids"})).image == DIGEST


def test_the_factory_offers_the_projects_clusters(tmp_path: Path) -> None:
    documents = load_documents(example_files(tmp_path, cluster_profiles=str(FOLDER)).settings())
    memory = {name: gpu.memory for name, gpu in documents.policy.gpu_classes.items()}
    known = Known(documents.policy.gpu_classes, ROLES, documents.policy.pools)
    assert documents.clusters.profiles == load_cluster_profiles(FOLDER, known, memory)


def test_without_the_folder_there_are_no_clusters(tmp_path: Path) -> None:
    assert len(load_documents(example_files(tmp_path).settings()).clusters) == 0


def test_a_folder_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FaultyDocument, match="gone:1: the folder of profiles cannot be read"):
        load_documents(example_files(tmp_path, cluster_profiles="gone").settings())


def test_a_cluster_is_not_named_like_a_server(tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "h200.yaml").write_text(LEAST)
    with pytest.raises(FaultyDocument, match=r"h200\.yaml:1: a profile of servers has this name"):
        load_documents(example_files(tmp_path, cluster_profiles="clusters").settings())
