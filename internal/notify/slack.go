package notify

import (
	"encoding/json"
	"fmt"
	"strings"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// The bounds of a message to a chat. Slack cuts a text after 4,000 characters, and shows at most 20 attachments well.
const (
	maxSlackNews = 15
	maxSlackText = 2500
)

// slackMessage is what Slack, Mattermost, Rocket.Chat and Discord (at /slack) take.
type slackMessage struct {
	Text string `json:"text"`
	// Markdown and the previews of links are off: a text may have what others wrote.
	Markdown    bool              `json:"mrkdwn"`
	UnfurlLinks bool              `json:"unfurl_links"`
	UnfurlMedia bool              `json:"unfurl_media"`
	Attachments []slackAttachment `json:"attachments,omitempty"`
}

type slackAttachment struct {
	Color    string `json:"color"`
	Fallback string `json:"fallback"`
	Text     string `json:"text"`
	// MarkdownIn is empty, so that nothing in the text is markup.
	MarkdownIn []string `json:"mrkdwn_in"`
}

// slackBody returns a message as a chat takes it.
func slackBody(m *Message) ([]byte, error) {
	head := "rotatord"
	if m.Replica != "" {
		head += " (" + m.Replica + ")"
	}
	s := slackMessage{Text: chatText(head + ": " + m.Title)}
	for i, n := range m.News {
		if i == maxSlackNews {
			break
		}
		lines := n.Lines(m.At)
		s.Attachments = append(s.Attachments, slackAttachment{Color: slackColor(n.Severity), Fallback: chatText(lines[0]),
			Text: chatText(printable.Shortened(strings.Join(lines, "\n"), maxSlackText)), MarkdownIn: []string{}})
	}
	if more := m.More + max(len(m.News)-maxSlackNews, 0); more > 0 {
		s.Text += chatText(fmt.Sprintf(" – %d more are not shown: rotatord status", more))
	}
	if m.URL != "" {
		s.Text += " " + chatText(m.URL)
	}
	return json.Marshal(s)
}

func slackColor(severity string) string {
	switch severity {
	case string(status.Critical):
		return "danger"
	case string(status.Warning):
		return "warning"
	}
	return "good"
}

// chatEscapes makes text that is only text: Slack's three escapes, and an invisible character after @, which would
// call people in other chats, and in ](, which would hide an address behind other words, or load a picture.
var chatEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "](", "]\u200b(")

func chatText(text string) string { return chatEscapes.Replace(text) }
