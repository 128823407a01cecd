//go:build chaos

package chaos

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table holds the results of all trials.
type table struct{ rows []row }

// row is the result of a trial.
type row struct {
	trial string
	// requests went through the edges, and failed of them were lost; gap is the longest time
	// without an answer.
	requests, failed int
	gap              time.Duration
	// certificates is the number of different certificates that the edges presented.
	certificates int
	// pods were requested; waited of them had to be requested again, wrong were admitted
	// without an injection.
	pods, waited, wrong int
	// recoveries are the parts that recovered, each with the time that it took.
	recoveries []string
	took       time.Duration
	failure
}

// failure is true if the trial failed.
type failure bool

func (f failure) String() string {
	if f {
		return "FAILED"
	}
	return "passed"
}

// print writes the table.
func (t *table) print(out io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	_, _ = fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "TRIAL\tREQUESTS\tFAILED\tLONGEST GAP\tCERTIFICATES\tPODS\tWAITED\tWRONGLY ADMITTED\tTOOK\tVERDICT\tTIME TO HEAL")
	for _, r := range t.rows {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", r.trial, r.requests, r.failed, r.gap.Round(time.Millisecond),
			r.certificates, r.pods, r.waited, r.wrong, r.took.Round(time.Second), r.failure, strings.Join(r.recoveries, ", "))
	}
	_ = w.Flush()
}
