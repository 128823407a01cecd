// Package page stands for a reader of the documentation: it reads a page as a list of
// commands and runs them one after the other, in one shell.
//
// Tiers: test/guides, and unit tests of the pages in docs.
//
// A page is Markdown. The words behind the fence of a block say what happens with it:
//
//	sh         commands; the page fails if one of them fails
//	sh retry   commands that may need a moment: they are repeated, in a subshell, until
//	           they succeed and print the expected text, for at most a minute
//	sh skip    commands for a real cluster only; the text says why
//	text       directly after commands: what they print
//	(other)    for the reader only; not run
//
// In the expected text a line of three dots stands for any lines, three dots at the end of
// a line for the rest of the line, and a word in angle brackets, ⟨name⟩, for one or more
// characters other than blanks. Several blanks count as one.
package page

import (
	"fmt"
	"os"
	"strings"
)

// Page is a page of the documentation.
type Page struct {
	// Path is the name of the page in errors.
	Path string
	// Blocks are the page's blocks of commands, in order.
	Blocks []Block
}

// Block is a fenced block of commands.
type Block struct {
	// Line is the line number of the opening fence.
	Line int
	// Commands is the text between the fences.
	Commands string
	// Retry and Skip are true if the fence has these words.
	Retry, Skip bool
	// Expects is true if a block of text follows; Want is that text.
	Expects bool
	Want    string
}

// Read reads a page from a file.
func Read(path string) (*Page, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, string(data))
}

// Parse reads a page from its text.
func Parse(path, text string) (*Page, error) {
	p := &Page{Path: path}
	var info []string // the words after an open fence
	var content strings.Builder
	openLine, indent, afterCommands := 0, "", false // afterCommands: only empty lines since commands
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case openLine == 0 && strings.HasPrefix(trimmed, "```"):
			openLine, indent = number, line[:len(line)-len(trimmed)]
			info = strings.Fields(strings.TrimPrefix(trimmed, "```"))
			content.Reset()
		case openLine == 0:
			afterCommands = afterCommands && trimmed == ""
		case trimmed == "```":
			if err := p.add(openLine, info, content.String(), afterCommands); err != nil {
				return nil, err
			}
			afterCommands = len(info) > 0 && info[0] == "sh"
			openLine = 0
		default:
			content.WriteString(strings.TrimPrefix(line, indent) + "\n")
		}
	}
	if openLine != 0 {
		return nil, fmt.Errorf("%s:%d: this block has no end", path, openLine)
	}
	return p, nil
}

// add adds a block. If afterCommands is true, a block of text is the output that the last
// commands should print.
func (p *Page) add(line int, info []string, text string, afterCommands bool) error {
	if len(info) == 0 {
		return nil
	}
	switch info[0] {
	case "sh":
		b := Block{Line: line, Commands: text}
		for _, word := range info[1:] {
			switch word {
			case "retry":
				b.Retry = true
			case "skip":
				b.Skip = true
			default:
				return fmt.Errorf("%s:%d: unknown word %q: choose retry or skip", p.Path, line, word)
			}
		}
		p.Blocks = append(p.Blocks, b)
	case "text":
		if afterCommands {
			last := &p.Blocks[len(p.Blocks)-1]
			last.Expects, last.Want = true, text
		}
	}
	return nil
}
