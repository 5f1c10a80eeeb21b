"""A bucket of Google Cloud Storage in memory: as much of its JSON API as a run makes use of.

Both clients of a run talk to it by HTTP as they would to Google: TensorStore (the arrays of
checkpoints) and gcsfs (everything else).
"""

import base64
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Bucket(ThreadingHTTPServer):
    """Objects by name; ``with`` starts and stops the server."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[bytes, int]] = {}  # content and generation
        self.sessions: dict[str, tuple[str, bytearray]] = {}
        self.generation, self.lock = 0, threading.RLock()
        self.refused = ""  # writes to names that have it are
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that has gone away, as its answer came late, is no error."""

    def put(self, name, content):
        with self.lock:
            self.generation += 1
            self.objects[name] = bytes(content), self.generation

    def facts(self, name):
        content, generation = self.objects[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {
            "kind": "storage#object", "bucket": "bucket", "name": name, "md5Hash": md5,
            "size": str(len(content)), "generation": str(generation), "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z", "timeCreated": "2026-01-01T00:00:00.000Z",
            "contentType": "application/octet-stream", "etag": str(generation),
        }  # fmt: skip

    def listing(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first, end = query.get("startOffset", ""), query.get("endOffset", "")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name < first or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.facts(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for its second half

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(url.query).items()}
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        with self.server.lock:
            self.route(parts, query, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def route(self, parts, query, body):
        at = parts.index("b") + 2
        if parts[at - 1] != "bucket":
            self.answer(404, {"error": {"code": 404, "message": "The bucket does not exist"}})
        elif parts[0] == "upload":
            self.upload(query, body)
        elif len(parts) == at:
            self.answer(200, {"kind": "storage#bucket", "name": "bucket", "id": "bucket"})
        elif len(parts) == at + 1:
            self.answer(200, self.server.listing(query))
        else:
            self.one(parts[at + 1], parts[at + 2 :], query)

    def one(self, name, action, query):
        objects = self.server.objects
        if name not in objects:
            self.answer(404, {"error": {"code": 404, "message": f"No such object: {name}"}})
        elif action:
            target = action[-1]
            self.server.put(target, objects[name][0])
            if action[0] == "moveTo":
                del objects[name]
                self.answer(200, self.server.facts(target))
            else:
                size = str(len(objects[target][0]))
                done = {"done": True, "resource": self.server.facts(target)}
                self.answer(200, {**done, "objectSize": size, "totalBytesRewritten": size})
        elif self.command == "DELETE":
            del objects[name]
            self.answer(204)
        elif query.get("alt") == "media":
            self.media(*objects[name], query)
        else:
            self.answer(200, self.server.facts(name))

    def media(self, content, generation, query):
        if query.get("ifGenerationNotMatch") == str(generation):
            self.answer(304)
            return
        headers, status = {"x_goog_generation": generation}, 200
        if wanted := self.headers.get("Range"):
            start, end = wanted.removeprefix("bytes=").split("-")
            first = int(start) if start else max(len(content) - int(end), 0)
            last = min(int(end) if start and end else len(content) - 1, len(content) - 1)
            if first >= len(content):
                self.answer(416)
                return
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self.answer(status, content, **headers)

    def upload(self, query, body):
        sessions, name = self.server.sessions, query.get("name")
        if "upload_id" in query:
            name, received = sessions[query["upload_id"]]
            received += body
            span = self.headers.get("Content-Range", "")
            if span.endswith("/*"):
                self.answer(308, Range=f"bytes=0-{len(received) - 1}")
                return
            body = bytes(received)
        elif query["uploadType"] == "resumable":
            number = str(len(sessions))
            sessions[number] = name or json.loads(body)["name"], bytearray()
            location = f"{self.server.url}/upload/storage/v1/b/bucket/o?upload_id={number}"
            self.answer(200, Location=location)
            return
        elif query["uploadType"] == "multipart":
            mark = self.headers["Content-Type"].split("boundary=")[1].strip('"')
            _, facts, content, _ = body.split(b"--" + mark.encode())
            name = json.loads(facts.split(b"\n\n", 1)[1])["name"]
            body = content.split(b"\n\n", 1)[1].removesuffix(b"\n")
        self.write(name, body, query)

    def write(self, name, body, query):
        generation = self.server.objects.get(name, (b"", 0))[1]
        if self.server.refused and self.server.refused in name:
            self.answer(403, {"error": {"code": 403, "message": "The quota is exceeded"}})
        elif query.get("ifGenerationMatch", str(generation)) != str(generation):
            self.answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        else:
            self.server.put(name, body)
            self.answer(200, self.server.facts(name))
