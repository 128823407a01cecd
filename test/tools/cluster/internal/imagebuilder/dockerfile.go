package imagebuilder

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// dockerfile is a parsed Dockerfile of two stages: one that builds programs, and one
// that copies them to an image from scratch.
type dockerfile struct {
	// sources are the files and folders that the first stage builds from.
	sources []string
	// arguments are the ARGs with their defaults.
	arguments map[string]string
	// commands are the RUN lines of the first stage, in their order.
	commands []string
	// files are paths of the first stage that the second stage copies to folder.
	files      []string
	folder     string
	user       string
	entrypoint []string
}

// parseDockerfile parses a Dockerfile of this form. It returns an error for any other
// instruction, so that the image and the Dockerfile cannot drift apart.
func parseDockerfile(text string) (*dockerfile, error) {
	d := &dockerfile{arguments: map[string]string{}}
	stage := 0
	for _, line := range instructions(text) {
		if verb, _, _ := strings.Cut(line, " "); verb == "FROM" {
			stage++
		}
		if err := d.addInstruction(stage, line); err != nil {
			return nil, fmt.Errorf("%w in %q: this builds the image without Docker and has to know it", err, line)
		}
	}
	if stage != 2 || len(d.commands) == 0 || len(d.files) == 0 || d.user == "" || len(d.entrypoint) == 0 {
		return nil, fmt.Errorf("want two stages with RUN, COPY --from, USER and ENTRYPOINT, got %d stages: %+v", stage, *d)
	}
	return d, nil
}

// instructions returns the lines without comments and with continued lines joined.
func instructions(dockerfile string) []string {
	var lines []string
	continued := false
	for line := range strings.Lines(dockerfile) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		text, more := strings.CutSuffix(line, "\\")
		if continued {
			lines[len(lines)-1] += " " + strings.TrimSpace(text)
		} else {
			lines = append(lines, strings.TrimSpace(text))
		}
		continued = more
	}
	return lines
}

var mountFlags = regexp.MustCompile(`^(--mount=\S+\s+)+`)

func (d *dockerfile) addInstruction(stage int, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	words := strings.Fields(rest)
	switch {
	case verb == "ARG":
		name, value, _ := strings.Cut(rest, "=")
		d.arguments[name] = value
	case verb == "FROM" && stage == 1, verb == "FROM" && stage == 2 && rest == "scratch":
	case verb == "WORKDIR" && stage == 1:
	case verb == "COPY" && stage == 1 && len(words) > 1 && !strings.HasPrefix(rest, "--"):
		d.sources = append(d.sources, words[:len(words)-1]...)
	case verb == "RUN" && stage == 1:
		d.commands = append(d.commands, mountFlags.ReplaceAllString(rest, ""))
	case verb == "COPY" && stage == 2 && len(words) > 2 && words[0] == "--from=build":
		d.files, d.folder = append(d.files, words[1:len(words)-1]...), words[len(words)-1]
	case verb == "USER" && stage == 2:
		d.user = rest
	case verb == "ENTRYPOINT" && stage == 2:
		return json.Unmarshal([]byte(rest), &d.entrypoint)
	default:
		return fmt.Errorf("unknown instruction %s", verb)
	}
	return nil
}

// script returns the commands of the first stage with out instead of /out. values
// override the defaults of the ARGs.
func (d *dockerfile) script(out string, values map[string]string) string {
	var assignments []string
	for name, value := range d.arguments {
		if given, ok := values[name]; ok {
			value = given
		}
		assignments = append(assignments, "${"+name+"}", value)
	}
	expand := strings.NewReplacer(append(assignments, "/out/", out+"/")...)
	return expand.Replace(strings.Join(d.commands, "\n"))
}

// outputs maps the paths of the copied files in the image to their names in /out.
func (d *dockerfile) outputs() map[string]string {
	files := map[string]string{}
	for _, f := range d.files {
		files[path.Join(d.folder, path.Base(f))] = strings.TrimPrefix(f, "/out/")
	}
	return files
}
