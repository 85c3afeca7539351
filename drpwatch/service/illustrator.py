"""Writing pictures of micrographs, beside their way: nothing waits for it, and it can fail nothing."""

from __future__ import annotations

from drpwatch.config import Page
from drpwatch.errors import DrpwatchError
from drpwatch.micrograph import Pictures, ReadyMicrograph
from drpwatch.service.aside import Aside
from drpwatch.service.channel import Channel
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.thumbnails import Thumbnails

LOOP = "illustrator"
_PLACES = 4
_BYTES_PER_MB = 1_000_000


class Illustrator(Aside):
    """Takes pictures as long as there is room, and writes them in a thread of its own.

    A disk that is slow costs pictures, and one that hangs leaves the thread behind when the daemon ends.
    """

    def __init__(self, journal: Journal, config: Page, publisher: Publisher) -> None:
        super().__init__(LOOP)
        self._journal = journal
        self._config = config
        self._publisher = publisher
        self._pictures: Channel[tuple[ReadyMicrograph, Pictures]] = Channel(_PLACES)
        self._albums: dict[str, Thumbnails] = {}

    @property
    def has_room(self) -> bool:
        """Whether a picture would be taken: else there is no use in drawing it."""
        return self._config.most_pictures > 0 and self._pictures.depth < _PLACES

    def offer(self, ready: ReadyMicrograph, pictures: Pictures) -> None:
        """Have pictures written soon; where there is no room they are left out."""
        self._pictures.offer((ready, pictures))

    def _run(self) -> None:
        while not self._stop.is_set():
            item = self._pictures.get()
            if item is None:
                continue
            try:
                self._write(*item)
            except Exception as error:  # noqa: BLE001 - top of a thread: pictures are left out, nothing else
                self._publisher.crashed(LOOP, error)

    def _write(self, ready: ReadyMicrograph, pictures: Pictures) -> None:
        try:
            self._album(ready.session).write(ready.name, pictures)
        except OSError as error:
            self._albums.pop(ready.session, None)  # what it knows of the disk is not true any more
            why = (error.strerror or str(error)).lower()
            self._publisher.problem(
                "picture", ready.session, f"pictures of session {ready.session} cannot be written: {why}"
            )
        except DrpwatchError as error:
            self._publisher.problem("picture", ready.session, str(error))
        else:
            self._publisher.over("picture", ready.session)
            self._publisher.illustrated(ready.session, ready.name)

    def _album(self, session: str) -> Thumbnails:
        if session not in self._albums:
            self._albums[session] = Thumbnails(
                self._journal.session(session).spec.out_dir,
                self._config.most_pictures,
                round(self._config.most_pictures_mb * _BYTES_PER_MB),
            )
        return self._albums[session]
