"""What every plug-in must do, whatever its kind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest
import structlog
from pydantic import ValidationError

from trunkline.core.contracts import Plugin, PluginContext
from trunkline.core.testing.declarations import (
    misnamed_fields,
    plain_secrets,
    readme_of,
    schema_text,
    settings_classes,
    undescribed_fields,
)
from trunkline.core.testing.kits import Kit, NotApplicableError
from trunkline.core.testing.observation import Transcript, environment, run, transcript

K = TypeVar("K", bound=Kit)


class PluginSuite(Generic[K]):
    """The tests that all kinds share."""

    plugin: ClassVar[type[Plugin]]
    factory: ClassVar[Callable[[Path], Any]]

    @pytest.fixture
    def kit(self, tmp_path: Path) -> K:
        """A kit of this test's own."""
        made: K = type(self).factory(tmp_path)
        return made

    def test_every_settings_field_is_described(self) -> None:
        """Docs pages, editors and the console show it."""
        assert undescribed_fields(self.plugin) == []

    def test_every_settings_field_is_named_in_snake_case(self) -> None:
        """All manifests look alike."""
        assert misnamed_fields(self.plugin) == []

    def test_every_secret_is_typed_as_one(self, kit: K) -> None:
        """A manifest in git must not be able to hold a password."""
        assert plain_secrets(self.plugin, kit.not_secret) == []

    def test_every_settings_class_refuses_unknown_fields(self) -> None:
        """A misspelt setting would else be silently without effect."""
        open_ones = [
            kind.__name__ for kind in settings_classes(self.plugin) if kind.model_config.get("extra") != "forbid"
        ]
        assert open_ones == []

    def test_an_unknown_setting_is_an_error(self) -> None:
        """The settings class says so itself, not only its declaration."""
        with pytest.raises(ValidationError):
            self.plugin.settings_type.model_validate({"no_such_setting_anywhere": 1})

    def test_the_settings_have_a_json_schema(self) -> None:
        """Editors validate manifests by it."""
        assert schema_text(self.plugin)

    def test_the_summary_is_one_sentence(self) -> None:
        """Listings show it in one line."""
        summary = self.plugin.summary
        assert 10 <= len(summary) <= 140, summary
        assert summary.endswith("."), summary
        assert "\n" not in summary

    def test_the_folder_has_a_readme(self) -> None:
        """It says what settings can't."""
        readme = readme_of(self.plugin)
        assert readme.is_file(), f"{readme} is missing"
        assert len(readme.read_text(encoding="utf-8").split()) >= 20, f"{readme} says too little"

    def test_the_class_is_complete(self) -> None:
        """An abstract method would only show when the plug-in is made."""
        assert not inspect.isabstract(self.plugin)

    # --- for the suites of the kinds ---

    def perform(self, kit: K, work: Callable[[Scene], Awaitable[None]]) -> None:
        """Starts the kit's other side, runs `work` on an event loop, and looks for leaked tasks, sockets and secrets."""
        with transcript() as said:

            async def whole() -> None:
                try:
                    await kit.start()
                    with environment(dict(kit.environment)):
                        await work(Scene(self.plugin, kit, said))
                finally:
                    await kit.stop()

            with skipping():
                run(whole)
        leaks = said.leaks(kit.secrets)
        assert not leaks, f"secrets were shown: {leaks[:3]}"


class Scene:
    """One test's stage: makes plug-ins, opens and closes them, and notes what they say."""

    def __init__(self, plugin: type[Plugin], kit: Kit, said: Transcript) -> None:
        self._plugin = plugin
        self._kit = kit
        self.said = said

    def made(self) -> Any:
        """The plug-in, from the kit's configuration as a manifest has it."""
        connection_type = self._plugin.connection_type
        given = self._kit.connection
        connection = None
        if connection_type is not None:
            assert given is not None, "the kit gives no connection"
            connection = connection_type.model_validate(given)
        made = self._plugin(self._plugin.settings_type.model_validate(self._kit.config), connection)
        arrange = getattr(self._kit, "arrange", None)
        if arrange is not None:
            arrange(made)
        return made

    def context(self) -> PluginContext:
        """What the engine tells it."""
        data = self._kit.folder / "pipeline-data"
        data.mkdir(exist_ok=True)
        log = structlog.stdlib.get_logger("conformance")
        return PluginContext("conformance", "conformance-pipeline", data, log)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        """An open plug-in, closed afterwards, also when it failed to open."""
        plugin = self.made()
        try:
            await plugin.open(self.context())
            yield plugin
        except BaseException as error:
            self.said.say(error)
            raise
        finally:
            async with asyncio.timeout(10):
                await plugin.close()


@contextmanager
def skipping() -> Iterator[None]:
    """What the kit calls not applicable is skipped, with its reason."""
    try:
        yield
    except NotApplicableError as error:
        pytest.skip(str(error))


def suite_class(base: type[PluginSuite[Any]], plugin: type[Plugin], factory: Callable[[Path], Any]) -> Any:
    """A test class for one plug-in."""
    name = f"Test{plugin.__name__}"
    doc = f"{plugin.__name__} keeps the contract."
    return type(name, (base,), {"plugin": plugin, "factory": staticmethod(factory), "__doc__": doc})
