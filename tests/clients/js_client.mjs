// A matrix-js-sdk client that is told what to do: one JSON object a line on standard input,
// {"do": NAME, ...}; one line back for each, {"ok": RESULT} or {"error": TEXT}.

import { createInterface } from "node:readline";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { cryptoCommands } from "./js_crypto.mjs";
import { mediaCommands } from "./js_media.mjs";

logger.setLevel("silent");
// The answers alone go to standard output.
console.log = console.info = console.debug = console.error;
// The SDK waits for a random part of ten seconds before it fills a key backup.
const { random } = Math;
Math.random = () => random() / 100;
const baseUrl = process.argv[2];
let client;

// Resolves when `check()` gives something; looks again after each event of the client.
function until(check) {
    return new Promise((resolve) => {
        const look = () => {
            const found = check();
            if (found) {
                clearInterval(timer);
                resolve(found);
            }
        };
        const timer = setInterval(look, 20);
        look();
    });
}

const events = (roomId) => client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];

const commands = {
    async register({ user, password }) {
        const first = sdk.createClient({ baseUrl });
        const answer = await first.registerRequest({
            username: user,
            password,
            auth: { type: "m.login.dummy" },
        });
        client = sdk.createClient({
            baseUrl,
            userId: answer.user_id,
            accessToken: answer.access_token,
            deviceId: answer.device_id,
        });
        await client.startClient({ initialSyncLimit: 5 });
        await until(() => client.isInitialSyncComplete());
        return answer.user_id;
    },
    async join_invited({ room }) {
        await until(() => client.getRoom(room)?.getMyMembership() === "invite");
        await client.joinRoom(room);
        await until(() => client.getRoom(room)?.getMyMembership() === "join");
        return room;
    },
    async wait_member({ room, user }) {
        return until(() => client.getRoom(room)?.getMember(user)?.membership === "join");
    },
    async wait_message({ room, body }) {
        const event = await until(() =>
            events(room).find((each) => each.getContent().body === body),
        );
        return { event_id: event.getId(), sender: event.getSender() };
    },
    async send({ room, body }) {
        return (await client.sendTextMessage(room, body)).event_id;
    },
    async send_until_it_goes({ room, body }) {
        for (;;) {
            try {
                return (await client.sendTextMessage(room, body)).event_id;
            } catch {
                await new Promise((resolve) => setTimeout(resolve, 200));
            }
        }
    },
    async read({ room, event }) {
        const found = events(room).find((each) => each.getId() === event);
        await client.sendReadReceipt(found);
        return true;
    },
    async wait_read({ room, event, user }) {
        return until(() => client.getRoom(room)?.getEventReadUpTo(user) === event);
    },
    async set_name({ name }) {
        await client.setDisplayName(name);
        return true;
    },
    async wait_name({ room, user, name }) {
        return until(() => client.getRoom(room)?.getMember(user)?.name === name);
    },
    async wait_redacted({ room, event }) {
        return until(() =>
            events(room).some((each) => each.getId() === event && each.isRedacted()),
        );
    },
    async page_back({ room, limit }) {
        const found = client.getRoom(room);
        while (found.oldState.paginationToken !== null) {
            await client.scrollback(found, limit);
        }
        return events(room)
            .map((each) => each.getContent().body)
            .filter((body) => body !== undefined);
    },
    async typing({ room }) {
        await client.sendTyping(room, true, 10000);
        return true;
    },
    async unread({ room }) {
        return client.getRoom(room).getUnreadNotificationCount();
    },
    async stop() {
        client?.stopClient();
        return true;
    },
};

Object.assign(
    commands,
    cryptoCommands(baseUrl, { current: () => client, begin: (made) => (client = made), until, events }),
    mediaCommands({ current: () => client, until, events }),
);

for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
        answer = { ok: await commands[command.do](command) };
    } catch (error) {
        answer = { error: String(error?.stack ?? error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
    if (command.do === "stop") {
        process.exit(0);
    }
}
