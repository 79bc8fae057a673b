// The commands of js_client.mjs that have to do with encryption (the SDK's Rust crypto).

import * as sdk from "matrix-js-sdk";
import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/recovery-key.js";

export function cryptoCommands(baseUrl, { current, begin, until, events }) {
    let secretStorageKey;
    let request;
    let verifier;
    const crypto = () => current().getCrypto();

    // What the user would be asked: the key of the secret storage.
    const cryptoCallbacks = {
        async getSecretStorageKey({ keys }) {
            return [Object.keys(keys)[0], secretStorageKey];
        },
        cacheSecretStorageKey() {},
    };

    const readable = (event, body) => !event.isDecryptionFailure() && event.getContent().body === body;

    return {
        async login({ user, password, device }) {
            const answer = await sdk.createClient({ baseUrl }).loginRequest({
                type: "m.login.password",
                identifier: { type: "m.id.user", user },
                password,
                device_id: device,
            });
            const client = sdk.createClient({
                baseUrl,
                userId: answer.user_id,
                accessToken: answer.access_token,
                deviceId: answer.device_id,
                cryptoCallbacks,
            });
            await client.initRustCrypto({ useIndexedDB: false });
            client.on(CryptoEvent.VerificationRequestReceived, (found) => (request = found));
            begin(client);
            await client.startClient({ initialSyncLimit: 20, threadSupport: true });
            await until(() => client.isInitialSyncComplete());
            return answer.user_id;
        },
        // Cross-signing keys, secret storage and key backup; the recovery key.
        async bootstrap({ user, password }) {
            await crypto().bootstrapCrossSigning({
                authUploadDeviceSigningKeys: (ask) =>
                    ask(null).catch((error) =>
                        ask({
                            type: "m.login.password",
                            identifier: { type: "m.id.user", user },
                            password,
                            session: error.data.session,
                        }),
                    ),
            });
            const made = await crypto().createRecoveryKeyFromPassphrase();
            secretStorageKey = made.privateKey;
            await crypto().bootstrapSecretStorage({
                createSecretStorageKey: async () => made,
                setupNewKeyBackup: true,
                setupNewSecretStorage: true,
            });
            return made.encodedPrivateKey;
        },
        async ready() {
            return {
                cross_signing: await crypto().isCrossSigningReady(),
                secret_storage: await crypto().isSecretStorageReady(),
                backup: await crypto().getActiveSessionBackupVersion(),
            };
        },
        // Every key is in the backup.
        async wait_backed_up({ keys }) {
            let info;
            do {
                info = await current().http.authedRequest("GET", "/room_keys/version");
                await new Promise((resolve) => setTimeout(resolve, 100));
            } while (info.count < keys);
            return info.count;
        },
        // Take the cross-signing keys and those of the backup from secret storage.
        async recover({ key }) {
            secretStorageKey = decodeRecoveryKey(key);
            await crypto().userHasCrossSigningKeys(current().getSafeUserId(), true);
            await crypto().bootstrapCrossSigning({});
            await crypto().checkKeyBackupAndEnable();
            await crypto().loadSessionBackupPrivateKeyFromSecretStorage();
            const { imported } = await crypto().restoreKeyBackup();
            return imported;
        },
        async create_encrypted({ name, invite }) {
            const { room_id } = await current().createRoom({
                name,
                invite,
                preset: "private_chat",
                initial_state: [
                    {
                        type: "m.room.encryption",
                        state_key: "",
                        content: { algorithm: "m.megolm.v1.aes-sha2" },
                    },
                ],
            });
            await until(() => current().getRoom(room_id)?.hasEncryptionStateEvent());
            return room_id;
        },
        async wait_decrypted({ room, body }) {
            const event = await until(() => events(room).find((each) => readable(each, body)));
            return { event_id: event.getId(), sender: event.getSender(), encrypted: event.isEncrypted() };
        },
        async send_in_thread({ room, root, body }) {
            return (await current().sendTextMessage(room, root, body)).event_id;
        },
        async wait_in_thread({ room, root, bodies }) {
            const thread = await until(() => current().getRoom(room)?.getThread(root));
            await until(() =>
                bodies.every((body) => thread.events.some((event) => readable(event, body))),
            );
            await until(() => thread.length === bodies.length);
            return thread.events.filter((each) => each.getId() !== root).map((each) => each.getContent().body);
        },
        // The threads of a room, as a client without any of them asks for them.
        async list_threads({ room }) {
            const found = current().getRoom(room);
            await found.createThreadsTimelineSets();
            await found.fetchRoomThreads();
            return found.getThreads().map((thread) => ({ root: thread.id, length: thread.length }));
        },
        async device_verified({ user, device }) {
            await crypto().getUserDeviceInfo([user], true);
            const status = await crypto().getDeviceVerificationStatus(user, device);
            return status?.crossSigningVerified ?? false;
        },
        async wait_device_verified({ user, device }) {
            for (;;) {
                const status = await crypto().getDeviceVerificationStatus(user, device);
                if (status?.crossSigningVerified) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
        },
        // Another user's device is known here without that this asks for it.
        async wait_device({ user, device }) {
            for (;;) {
                const devices = (await crypto().getUserDeviceInfo([user])).get(user);
                if (devices?.has(device)) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
        },
        async wait_without_device({ user, device }) {
            for (;;) {
                const devices = (await crypto().getUserDeviceInfo([user])).get(user);
                if (devices && !devices.has(device)) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
        },
        async verify_own() {
            await crypto().userHasCrossSigningKeys(current().getSafeUserId(), true);
            request = await crypto().requestOwnUserVerification();
            return request.transactionId;
        },
        async verify_user({ user, room }) {
            await crypto().getUserDeviceInfo([user], true);
            request = await crypto().requestVerificationDM(user, room);
            return request.transactionId;
        },
        async accept_request() {
            await until(() => request?.phase === VerificationPhase.Requested);
            await request.accept();
            return request.transactionId;
        },
        async start_sas() {
            await until(() => request.phase === VerificationPhase.Ready);
            verifier = await request.startVerification("m.sas.v1");
            return true;
        },
        // Go on until there are emoji to compare.
        async emoji() {
            verifier = verifier ?? (await until(() => request.verifier));
            const shown = new Promise((resolve) => verifier.once(VerifierEvent.ShowSas, resolve));
            verifier.done = verifier.verify();
            verifier.done.catch(() => {});
            const found = verifier.getShowSasCallbacks() ?? (await shown);
            verifier.confirm = () => found.confirm();
            return found.sas.emoji.map(([symbol]) => symbol);
        },
        async confirm() {
            await verifier.confirm();
            return true;
        },
        async verified() {
            await verifier.done;
            await until(() => request.phase === VerificationPhase.Done);
            verifier = undefined;
            return true;
        },
        async wait_user_verified({ user }) {
            for (;;) {
                if ((await crypto().getUserVerificationStatus(user)).isCrossSigningVerified()) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
        },
        async can_dehydrate() {
            return crypto().isDehydrationSupported();
        },
        // Take what the dehydrated device was sent, and leave a new one behind.
        async dehydrate() {
            await crypto().startDehydration();
            return true;
        },
        async logout() {
            await current().logout(true);
            return true;
        },
        async undecryptable({ room }) {
            return events(room).filter((each) => each.isDecryptionFailure()).length;
        },
        // The key of the backup, as the other device sent it after the verification.
        async wait_backup_key() {
            while ((await crypto().getSessionBackupPrivateKey()) === null) {
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
            return true;
        },
    };
}
