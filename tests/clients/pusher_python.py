"""`pusher` for Python, unmodified: every call of the HTTP API, and verification of our webhooks.

Arguments: host, port, port to receive webhooks on. Prints a TAP line for each promise kept.
"""

import http.server
import queue
import sys
import threading

import pusher
import pusher.errors

HOST, PORT, WEBHOOK_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
KEPT = 0
deliveries = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        deliveries.put((self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"], body.decode()))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def promise(name, kept):
    global KEPT
    KEPT += 1
    print(f"{'ok' if kept else 'not ok'} {KEPT} - {name}", flush=True)
    if not kept:
        sys.exit(1)


def client(secret="app-secret"):
    # The library insists on an id of digits.
    return pusher.Pusher(app_id="1234", key="app-key", secret=secret, host=HOST, port=PORT, ssl=False,
                         encryption_master_key_base64="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")


def main():
    receiver = http.server.ThreadingHTTPServer((HOST, WEBHOOK_PORT), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    print("# ready for the member", flush=True)
    assert sys.stdin.readline().strip() == "joined"
    backend = client()
    promise("trigger", backend.trigger("news", "hello", {"text": "+ é & = ?"}) == {})
    promise("trigger on many", backend.trigger(["news", "presence-room"], "hello", "text", "1.1") == {})
    promise("trigger encrypted", backend.trigger("private-encrypted-x", "secret", {"a": 1}) == {})
    promise("trigger_batch", backend.trigger_batch([
        {"channel": "news", "name": "first", "data": {"a": 1}},
        {"channel": "presence-room", "name": "second", "data": "b", "socket_id": "1.1"},
    ]) == {})
    channels = backend.channels_info("presence-", ["user_count"])
    promise("channels_info", channels == {"channels": {"presence-room": {"user_count": 1}}})
    channel = backend.channel_info("presence-room", ["user_count", "subscription_count"])
    promise("channel_info", channel == {"occupied": True, "user_count": 1, "subscription_count": 1})
    promise("users_info", backend.users_info("presence-room") == {"users": [{"id": "10"}]})
    promise("send_to_user", backend.send_to_user("42", "hello", {"a": 1}) == {})
    try:
        promise("terminate_user_connections", backend.terminate_user_connections("42") == {})
    except pusher.errors.PusherBadStatus as error:
        # The library (3.3.4) leaves `/apps/{id}` out of this one path, which no server answers.
        promise("terminate_user_connections is 404, the library's fault", str(error).startswith("404"))
    try:
        client("wrong").trigger("news", "hello", {})
        promise("a wrong secret is refused", False)
    except pusher.errors.PusherForbidden:
        promise("a wrong secret is refused", False)
    except pusher.errors.PusherBadAuth:
        promise("a wrong secret is refused", True)
    seen = set()
    while not {"channel_occupied", "member_added"} <= seen:
        key, signature, body = deliveries.get(timeout=20)
        webhook = backend.validate_webhook(key, signature, body)
        if webhook is None:
            promise("webhooks verify", False)
        seen |= {event["name"] for event in webhook["events"]}
    promise("webhooks verify", True)
    promise("an altered webhook does not", backend.validate_webhook(key, signature, body + " ") is None)
    print(f"1..{KEPT}", flush=True)


main()
