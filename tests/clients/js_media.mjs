// The commands of js_client.mjs that have to do with files, encrypted as the specification's
// "Sending encrypted attachments" says, and with pushers.

import { createHash, randomBytes, webcrypto } from "node:crypto";

const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
const sha256 = (bytes) => unpadded(createHash("sha256").update(bytes).digest());

async function encrypted(bytes) {
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, [
        "encrypt",
        "decrypt",
    ]);
    const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
    const how = { name: "AES-CTR", counter: iv, length: 64 };
    const data = Buffer.from(await webcrypto.subtle.encrypt(how, key, bytes));
    const file = {
        v: "v2",
        key: await webcrypto.subtle.exportKey("jwk", key),
        iv: unpadded(iv),
        hashes: { sha256: sha256(data) },
    };
    return { data, file };
}

async function decrypted(data, file) {
    if (sha256(data) !== file.hashes.sha256) {
        throw new Error("the file is not the one that was sent");
    }
    const key = await webcrypto.subtle.importKey("jwk", file.key, "AES-CTR", false, ["decrypt"]);
    const how = { name: "AES-CTR", counter: Buffer.from(file.iv, "base64"), length: 64 };
    return Buffer.from(await webcrypto.subtle.decrypt(how, key, data));
}

export function mediaCommands({ current, until, events }) {
    const picture = (event, body) =>
        event.getContent().msgtype === "m.image" && event.getContent().body === body;

    async function download(uri, ...size) {
        const url = current().mxcUrlToHttp(uri, ...size, false, true, true);
        const headers = { Authorization: `Bearer ${current().getAccessToken()}` };
        const answer = await fetch(url, { headers });
        if (!answer.ok) {
            throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
        }
        return { data: Buffer.from(await answer.arrayBuffer()), type: answer.headers.get("content-type") };
    }

    return {
        // Send a picture (base64), encrypted; names of the file and of the event.
        async send_picture({ room, body, picture }) {
            const { data, file } = await encrypted(Buffer.from(picture, "base64"));
            const { content_uri } = await current().uploadContent(data, {
                type: "application/octet-stream",
                includeFilename: false,
            });
            const info = { mimetype: "image/png", size: data.length };
            const content = { msgtype: "m.image", body, info, file: { url: content_uri, ...file } };
            const { event_id } = await current().sendMessage(room, content);
            return { uri: content_uri, event_id };
        },
        // Wait for a picture, fetch it and decrypt it; base64.
        async wait_picture({ room, body }) {
            const event = await until(() =>
                events(room).find((each) => !each.isDecryptionFailure() && picture(each, body)),
            );
            const { file } = event.getContent();
            const { data } = await download(file.url, undefined, undefined, undefined);
            return (await decrypted(data, file)).toString("base64");
        },
        // Upload a picture as an avatar.
        async set_avatar({ picture }) {
            const { content_uri } = await current().uploadContent(Buffer.from(picture, "base64"), {
                type: "image/png",
                name: "me.png",
            });
            await current().setAvatarUrl(content_uri);
            return content_uri;
        },
        // Wait for somebody's avatar in a room, and fetch it small.
        async wait_avatar({ room, user }) {
            const uri = await until(() => current().getRoom(room)?.getMember(user)?.getMxcAvatarUrl());
            const { data, type } = await download(uri, 32, 32, "crop");
            return { type, picture: data.toString("base64") };
        },
        async set_pusher({ url, pushkey }) {
            await current().setPusher({
                kind: "http",
                app_id: "org.example.app",
                app_display_name: "App",
                device_display_name: "Phone",
                lang: "en",
                pushkey,
                data: { url, format: "event_id_only" },
            });
            return (await current().getPushers()).pushers.length;
        },
    };
}
