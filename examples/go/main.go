// A streamed chat by the Connect protocol, left after the tool's answer, and the rest of the run from there.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"connectrpc.com/connect"

	agentv1 "example/gen/agentmesh/agent/v1"
	"example/gen/agentmesh/agent/v1/agentv1connect"
)

//go:generate npx buf generate

func main() {
	message := "What is 12 * 34?"
	if len(os.Args) > 1 {
		message = os.Args[1]
	}
	ctx := context.Background()
	runID, seq, err := chat(ctx, message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("-- left %s after event %d; resuming\n", runID, seq)
	if err := resume(ctx, runID, seq); err != nil {
		log.Fatal(err)
	}
}

// chat prints the answer as it comes, up to the tool's result, and returns the run and the last event's number.
func chat(ctx context.Context, message string) (runID string, seq int64, err error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	client := agentv1connect.NewChatServiceClient(http.DefaultClient, baseURL())
	stream, err := client.ChatStream(ctx, authorized(&agentv1.ChatStreamRequest{Message: message}))
	if err != nil {
		return "", 0, err
	}
	for stream.Receive() {
		event := stream.Msg().GetEvent()
		seq = event.GetSeq()
		switch payload := event.GetPayload().(type) {
		case *agentv1.ChatEvent_Text:
			fmt.Print(payload.Text.GetContent())
		case *agentv1.ChatEvent_ToolCall:
			fmt.Printf("\n[%s %s]\n", payload.ToolCall.GetTool(), payload.ToolCall.GetArgsJson())
		case *agentv1.ChatEvent_ToolResult:
			fmt.Printf("[result %s]\n", payload.ToolResult.GetResult())
			return runOf(stream.ResponseHeader()), seq, nil
		}
	}
	return runOf(stream.ResponseHeader()), seq, stream.Err()
}

// resume prints the rest of a run.
func resume(ctx context.Context, runID string, afterSeq int64) error {
	client := agentv1connect.NewRunServiceClient(http.DefaultClient, baseURL())
	request := &agentv1.StreamRunEventsRequest{RunId: runID, AfterSeq: afterSeq}
	stream, err := client.StreamRunEvents(ctx, authorized(request))
	if err != nil {
		return err
	}
	defer stream.Close()
	shown := map[string]bool{}
	for stream.Receive() {
		// What was open when we came back, so far; its next pieces follow.
		for _, item := range stream.Msg().GetOpenItems().GetItems() {
			if item.GetKind() == "message" {
				shown[item.GetItemId()] = true
				fmt.Print(item.GetContent())
			}
		}
		event := stream.Msg().GetEvent()
		switch payload := event.GetPayload().(type) {
		case *agentv1.AgentEvent_TextDelta:
			shown[event.GetItemId()] = true
			fmt.Print(payload.TextDelta.GetText())
		case *agentv1.AgentEvent_MessageCompleted:
			// Pieces that passed while we were away are not sent again: the whole message is.
			if shown[event.GetItemId()] {
				continue
			}
			for _, part := range payload.MessageCompleted.GetParts() {
				fmt.Print(part.GetText().GetText())
			}
		case *agentv1.AgentEvent_RunCompleted, *agentv1.AgentEvent_RunFailed, *agentv1.AgentEvent_RunCancelled:
			fmt.Printf("\n[%s, event %d]\n", event.GetType(), event.GetSeq())
		}
	}
	return stream.Err()
}

func authorized[T any](message *T) *connect.Request[T] {
	request := connect.NewRequest(message)
	request.Header().Set("Authorization", "Bearer "+os.Getenv("AGENTMESH_KEY"))
	return request
}

func baseURL() string {
	if url := os.Getenv("AGENTMESH_URL"); url != "" {
		return url
	}
	return "http://127.0.0.1:8080"
}

// runOf takes the run's id from "/api/v1/runs/<id>/events:stream".
func runOf(header http.Header) string {
	parts := strings.Split(header.Get("Location"), "/")
	if len(parts) < 5 {
		return ""
	}
	return parts[4]
}
