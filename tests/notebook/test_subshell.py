"""`%gpt show` in a subshell (JupyterLab: New Subshell Console for Notebook) while a cell of the notebook runs."""

from __future__ import annotations

import pytest
from jupyter_client.manager import start_new_kernel


def execute(client, code: str, subshell: str | None = None) -> str:
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    message = client.session.msg("execute_request", {**content, "user_expressions": {}}, metadata={"cellId": "a-cell"})
    if subshell:
        message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    return message["header"]["msg_id"]


def until_idle(client, request: str) -> list[str]:
    """What a request displayed, as text."""
    shown = []
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        assert message["msg_type"] != "error", message["content"]["evalue"]
        if message["msg_type"] == "display_data":
            shown.append(message["content"]["data"]["text/plain"])
        if message["content"].get("execution_state") == "idle":
            return shown


def test_a_run_is_shown_while_a_cell_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.kernel_info()
        info = client.get_shell_msg(timeout=60)["content"]
        if "kernel subshells" not in info.get("supported_features", []):
            pytest.skip("this ipykernel has no subshells")
        until_idle(client, execute(client, "%load_ext jupyter_gpt"))
        until_idle(client, execute(client, "%%pretrain tiny --steps 4000 --depth 1 --background\nstories: 1"))
        execute(client, "import time\nwhile True: time.sleep(0.1)")
        request = client.session.msg("create_subshell_request")
        client.control_channel.send(request)
        subshell = client.control_channel.get_msg(timeout=60)["content"]["subshell_id"]
        [shown] = until_idle(client, execute(client, "%gpt show tiny", subshell))
        assert shown.startswith("tiny: pretrain, running")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
