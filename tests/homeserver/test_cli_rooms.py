"""`hearth room`: lists, purges and deletions, without a server that runs."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.homeserver.test_cli import CommandCase
from tests.support.room_case import q
from tests.support.server import make_server


class RoomCommands(CommandCase):
    """Shows XC-4."""

    async def test_list_purge_and_delete(self) -> None:
        database = self.directory / "hearth.db"
        server = await make_server(self, database_url=f"sqlite:///{database}")
        alice = await server.register("alice")
        room_id = await alice.create_room(name="Lounge")
        sent = [await alice.send(room_id, f"number {n}") for n in range(5)]
        self.write(
            server_name="hearth.test",
            database={"url": f"sqlite:///{database}"},
            data_directory=str(server.homeserver.config.data_directory),
        )

        listed = await self.run_hearth("room", "list", "--search", "loun")
        self.assertEqual(listed, f"{room_id}\t1\t1\tLounge\n")
        said = await self.run_hearth(
            "room", "purge-history", room_id, "--before-event", sent[3], "--local-events"
        )
        self.assertEqual(said, "3 events were deleted.\n")
        page = await alice.ok("GET", f"/rooms/{q(room_id)}/messages", query={"dir": "b"})
        self.assertEqual([e["event_id"] for e in page["chunk"]], sent[:2:-1])
        said = await self.run_hearth("room", "delete", room_id, "--block")
        self.assertEqual(said, "1 users have left.\n")
        self.assertEqual(await self.run_hearth("room", "list"), "")
        answer = await alice.call("POST", f"/join/{q(room_id)}", {})
        self.assertEqual(answer.status, 403)

    async def run_hearth(self, *arguments: str) -> str:
        """What a command says; the server in this process runs meanwhile."""
        done = await deferToThread(self.hearth, *arguments, "-c", str(Path(self.file)))
        return done.stdout

    def test_bad_arguments(self) -> None:
        self.write()
        self.fails("room", "purge-history", "!x:localhost", "-c", str(self.file), status=2)
        said = self.fails("room", "delete", "!x:localhost", "-c", str(self.file))
        self.assertIn("Unknown room id", said)
