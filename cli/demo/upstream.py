"""An OpenAI-shaped inference server for the story, a program of its own: `python -m cli.demo.upstream PORT MODEL`.

It answers, streamed word by word or whole, with a text that holds an e-mail address of its own, so that a log which keeps
answers would show it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cli.parent import follow

ANSWER = "The ticket is about a late delivery; write to desk@example.net and mention case 17."
PAUSE_SECONDS = 0.03


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = "demo"

    def do_GET(self) -> None:
        self._whole({"object": "list", "data": [{"id": self.model, "object": "model", "created": 0, "owned_by": "demo"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("stream"):
            self._stream()
        else:
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 12, "completion_tokens": 17, "total_tokens": 29}
            self._whole(
                {
                    "id": "c1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": self.model,
                    "choices": [choice],
                    "usage": usage,
                }
            )

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in ANSWER.split(" "):
            choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
            chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": self.model, "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
            time.sleep(PAUSE_SECONDS)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _whole(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: prompts do not belong on a terminal."""


if __name__ == "__main__":
    follow(os.environ)
    Server.model = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
