package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"rotatord/internal/admin"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// How often `status --watch` asks the daemon: without an interval, and at most.
const (
	watchDefault = 5 * time.Second
	watchMin     = time.Second
)

// display is where a text for people goes. Colours and the movements of the cursor are added after the text was escaped,
// so that no foreign text can contain them.
type display struct {
	out      io.Writer // below the Writer that escapes
	terminal bool
	colour   bool
	size     func() (width, height int)
}

// newDisplay returns the display of a command's output. It has colours only on a terminal that has them, and not if
// NO_COLOR is set (no-color.org).
func newDisplay(out io.Writer) display {
	d := display{out: printable.Unescaped(out)}
	f, isFile := d.out.(*os.File)
	if d.terminal = isFile && isTerminal(f); !d.terminal {
		return d
	}
	d.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	d.size = func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}
	return d
}

// print prints a text once.
func (d display) print(text string) error {
	_, err := io.WriteString(d.out, d.safe(text))
	return err
}

// safe returns a text without foreign control characters, with its long lines broken on a terminal, and with colours if
// the display has them.
func (d display) safe(text string) string {
	text = printable.Escaped(text)
	if d.terminal {
		width, _ := d.size()
		text = folded(text, width)
	}
	if d.colour {
		text = coloured(text)
	}
	return text
}

// The sequences that change how a terminal shows text.
const (
	plain  = "\x1b[0m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
)

var (
	// severe is the first word of a line about a trouble. alarming is a name in capitals in the page of a token.
	severe   = regexp.MustCompile(`(?m)^(CRITICAL|WARNING)( )`)
	alarming = regexp.MustCompile(`(?m)^(  )([A-Z]{2,}(?: [A-Z]+)*)( )`)
	// typed is a command in the list of what an operator can do, or below a trouble.
	typed = regexp.MustCompile(`(?m)^(?:(  )((?:rotatord|systemctl|vault) \S.*)|(          type: )(.*))$`)
)

// commandLine is the beginning of a line with a command below a trouble, and doesLine that of what it does.
const (
	commandLine = "          type: "
	doesLine    = "                "
)

// coloured returns a text of status with colours for what matters most.
func coloured(text string) string {
	text = severe.ReplaceAllStringFunc(text, func(found string) string {
		word := strings.TrimSuffix(found, " ")
		if word == "CRITICAL" {
			return red + word + plain + " "
		}
		return yellow + word + plain + " "
	})
	text = alarming.ReplaceAllString(text, "${1}"+red+"${2}"+plain+"${3}")
	return typed.ReplaceAllString(text, "${1}${3}"+bold+"${2}${4}"+plain)
}

// folded returns a text of status with each line broken between words that is longer than width. What follows is below
// the value, so that what begins at the left margin is always a line of its own. The lines of tables are not broken.
func folded(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		indent := valueColumn(line)
		if indent < 0 || utf8.RuneCountInString(line) <= width+1 || width < indent+20 { // 1 is the newline
			b.WriteString(line)
			continue
		}
		b.WriteString(line[:indent])
		column := indent
		for i, word := range strings.Fields(line[indent:]) {
			length := utf8.RuneCountInString(word)
			switch {
			case i == 0:
			case column+1+length > width:
				b.WriteString("\n" + strings.Repeat(" ", indent))
				column = indent
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += length
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// valueColumn returns where the text of a line of status begins, in bytes; -1 if the line is in a table.
func valueColumn(line string) int {
	named := len(line) > 19 && strings.HasPrefix(line, "  ") && line[18] == ' ' && line[2] != ' ' && line[19] != ' '
	switch {
	case strings.HasPrefix(line, commandLine): // it is copied as it is
		return -1
	case strings.HasPrefix(line, doesLine) && len(line) > len(doesLine) && line[len(doesLine)] != ' ':
		return len(doesLine)
	case severe.MatchString(line), strings.HasPrefix(line, strings.Repeat(" ", 10)) && len(line) > 10 && line[10] != ' ':
		return 10
	case named, strings.HasPrefix(line, strings.Repeat(" ", 19)):
		return 19
	case strings.Contains(line, "   "):
		return -1
	}
	return len(line) - len(strings.TrimLeft(line, " "))
}

// watch shows what ask returns again and again on a terminal, until ctx ends. An error of the first answer ends it, and
// so does a refusal. Later, while the daemon does not answer, the last answer stays and the error is above it.
func watch(ctx context.Context, d display, every time.Duration, title string, ask func(context.Context) (status.Overview, error), shown func(status.Overview, time.Time) string) error {
	o, err := ask(ctx)
	if err != nil {
		return err
	}
	answered := time.Now()
	_, _ = io.WriteString(d.out, "\x1b[?1049h\x1b[?25l") // another screen, without the cursor
	defer func() {
		_, _ = io.WriteString(d.out, "\x1b[?25h\x1b[?1049l")
		_ = d.print(shown(o, answered)) // stays on the screen
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		now := time.Now()
		text := fmt.Sprintf("%s, every %s: %s (Ctrl-C to stop)\n\n", title, every, now.UTC().Format("2006-01-02 15:04:05 MST"))
		if err != nil {
			text += fmt.Sprintf("NO ANSWER for %s: %s\nWhat follows is old.\n\n", now.Sub(answered).Round(time.Second), printable.Line(err.Error(), 500))
		}
		if err := d.draw(text + shown(o, now)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var fresh status.Overview
		if fresh, err = ask(ctx); err == nil {
			o, answered = fresh, time.Now()
		}
		if _, refused := errors.AsType[*admin.Refused](err); refused {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// draw writes a text over the previous one. What does not fit on the screen is left out, and the last line says so.
func (d display) draw(text string) error {
	width, height := d.size()
	var lines []string
	left := height - 1 // for the line that says what is left out
	all := strings.Split(strings.TrimRight(folded(printable.Escaped(text), width), "\n"), "\n")
	for i, line := range all {
		rows := max(1, (utf8.RuneCountInString(line)+width-1)/width)
		if left -= rows; left < 0 && (i < len(all)-1 || left < -1) {
			lines = append(lines, fmt.Sprintf("... %d more lines: make the terminal larger", len(all)-i))
			break
		}
		lines = append(lines, line)
	}
	shown := strings.Join(lines, "\n")
	if d.colour {
		shown = coloured(shown)
	}
	_, err := io.WriteString(d.out, "\x1b[H"+strings.ReplaceAll(shown, "\n", "\x1b[K\r\n")+"\x1b[K\x1b[J")
	return err
}
