"""A streamed chat over gRPC, left after the tool's answer, and the rest of the run from there."""

import os
import pathlib
import sys

import grpc

# grpc compiles the protos that it finds here while they are imported: nothing is generated into files.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
chat_pb, chat_grpc = grpc.protos_and_services("agentmesh/agent/v1/chat_service.proto")
run_pb, run_grpc = grpc.protos_and_services("agentmesh/agent/v1/run_service.proto")

ADDRESS = os.environ.get("AGENTMESH_URL", "http://127.0.0.1:8080").removeprefix("http://")
METADATA = [("authorization", f"Bearer {os.environ['AGENTMESH_KEY']}")]


def show(text: str) -> None:
    print(text, end="", flush=True)


def chat(channel: grpc.Channel, message: str) -> tuple[str, int]:
    """Prints the answer as it comes, up to the tool's result; returns the run and the last event's seq."""
    seq = 0
    stream = chat_grpc.ChatServiceStub(channel).ChatStream(
        chat_pb.ChatStreamRequest(message=message), metadata=METADATA
    )
    for response in stream:
        event = response.event
        seq = event.seq
        match event.WhichOneof("payload"):
            case "text":
                show(event.text.content)
            case "tool_call":
                show(f"\n[{event.tool_call.tool} {event.tool_call.args_json}]\n")
            case "tool_result":
                show(f"[result {event.tool_result.result}]\n")
                break
    location = dict(stream.initial_metadata())["location"]
    stream.cancel()
    return location.split("/")[4], seq


def resume(channel: grpc.Channel, run_id: str, after_seq: int) -> None:
    shown: set[str] = set()
    request = run_pb.StreamRunEventsRequest(run_id=run_id, after_seq=after_seq)
    for response in run_grpc.RunServiceStub(channel).StreamRunEvents(request, metadata=METADATA):
        # What was open when we came back, so far; its next pieces follow.
        for item in response.open_items.items:
            if item.kind == "message":
                shown.add(item.item_id)
                show(item.content)
        event = response.event
        match event.WhichOneof("payload"):
            case "text_delta":
                shown.add(event.item_id)
                show(event.text_delta.text)
            # Pieces that passed while we were away are not sent again: the whole message is.
            case "message_completed" if event.item_id not in shown:
                show("".join(part.text.text for part in event.message_completed.parts))
            case "run_completed" | "run_failed" | "run_cancelled":
                show(f"\n[{event.type}, event {event.seq}]\n")


def main() -> None:
    message = sys.argv[1] if len(sys.argv) > 1 else "What is 12 * 34?"
    with grpc.insecure_channel(ADDRESS) as channel:
        run_id, seq = chat(channel, message)
        show(f"-- left {run_id} after event {seq}; resuming\n")
        resume(channel, run_id, seq)


main()
