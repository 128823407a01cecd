// Package page stands for a reader of the documentation: it reads a page as a list of
// commands and runs them one after the other, in one shell.
//
// Tiers: test/guides, and unit tests of the pages in docs.
//
// A page is Markdown. Its fenced blocks count, by the words behind the fence:
//
//	sh         commands; the page fails where one of them does
//	sh retry   commands that may need a moment: they are repeated, in a subshell, until
//	           they succeed and print what is expected, for at most a minute
//	sh skip    commands for a real cluster only; the text says why
//	text       right behind commands: what they print
//	anything   else is for the reader
//
// In what is expected a line of three dots stands for any lines, three dots at the
// end of a line for its rest, and a word in angle brackets, ⟨name⟩, for some
// characters other than blanks. Blanks in a row count as one.
package page

import (
	"fmt"
	"os"
	"strings"
)

// Page is one page.
type Page struct {
	// Path is what errors call it.
	Path string
	// Blocks are its commands, in order.
	Blocks []Block
}

// Block is a fenced block of commands.
type Block struct {
	// Line is where its fence is.
	Line int
	// Commands are what stands between the fences.
	Commands string
	// Retry and Skip are what the words behind the fence say.
	Retry, Skip bool
	// Expects is true where a block of text follows; Want is that text.
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
	var fence []string // the words behind an open fence
	var inside strings.Builder
	open, indent, behind := 0, "", false // behind: nothing but blanks since commands
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case open == 0 && strings.HasPrefix(trimmed, "```"):
			open, indent = number, line[:len(line)-len(trimmed)]
			fence = strings.Fields(strings.TrimPrefix(trimmed, "```"))
			inside.Reset()
		case open == 0:
			behind = behind && trimmed == ""
		case trimmed == "```":
			if err := p.add(open, fence, inside.String(), behind); err != nil {
				return nil, err
			}
			behind = len(fence) > 0 && fence[0] == "sh"
			open = 0
		default:
			inside.WriteString(strings.TrimPrefix(line, indent) + "\n")
		}
	}
	if open != 0 {
		return nil, fmt.Errorf("%s:%d: this block has no end", path, open)
	}
	return p, nil
}

// add takes a block in; behind says that it follows commands.
func (p *Page) add(line int, fence []string, text string, behind bool) error {
	if len(fence) == 0 {
		return nil
	}
	switch fence[0] {
	case "sh":
		b := Block{Line: line, Commands: text}
		for _, word := range fence[1:] {
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
		if behind {
			last := &p.Blocks[len(p.Blocks)-1]
			last.Expects, last.Want = true, text
		}
	}
	return nil
}
