package scale

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"text/tabwriter"
	"time"
)

// phase holds the measurements of one replica in a period.
type phase struct {
	name     string
	size     int
	took     time.Duration
	requests map[call]int
	memory   memory
	// cpuTime is the CPU time that was used.
	cpuTime time.Duration
	// idle is true if there was no new work.
	idle bool
}

// report holds all measurements.
type report struct {
	phases []phase
	// writes is the number of Secrets that were published for new roots.
	writes int
}

// add records a phase and prints it, so that the measurements are seen even if a later phase
// fails.
func (r *report) add(b *testing.B, p phase) {
	b.Helper()
	r.phases = append(r.phases, p)
	fmt.Printf("%s: %s, %s MiB resident (peak %s), %d requests\n",
		p.name, p.took.Round(100*time.Millisecond), mib(p.memory.resident), mib(p.memory.peak), sumRequests(p.requests))
}

// print writes the tables.
func (r *report) print(out io.Writer, took time.Duration) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(w, "\n\tphase\ttook\tSecrets/s\tMiB: resident\tanonymous\tpeak\tCPU s\tof a core\trequests\tper second\tlists of Secrets\n")
	for i, p := range r.phases {
		rate := ""
		if !p.idle {
			rate = fmt.Sprintf("%.0f", float64(p.size)/p.took.Seconds())
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%.1f %%\t%d\t%.1f\t%d\n", i+1, p.name, p.took.Round(100*time.Millisecond), rate,
			mib(p.memory.resident), mib(p.memory.anonymous), mib(p.memory.peak), p.cpuTime.Seconds(), 100*p.cpuTime.Seconds()/p.took.Seconds(),
			sumRequests(p.requests), float64(sumRequests(p.requests))/p.took.Seconds(), listsAndWatches(p.requests))
	}
	_ = w.Flush()
	r.printRequests(out)
	r.printGrowth(out)
	worst := r.worst()
	_, _ = fmt.Fprintf(out, "\nwrites for new roots: %d\nmemory: peak %s MiB of all phases (bar %d)\nlists and watches of Secrets: %d (bar 0)\nall of it took %s\n\n",
		r.writes, mib(worst.memory.peak), memoryBar>>20, r.listsAndWatches(), took.Round(time.Second))
}

// printRequests writes the numbers of requests, with a column for each phase.
func (r *report) printRequests(out io.Writer) {
	all := map[call]int{}
	for _, p := range r.phases {
		for c, n := range p.requests {
			all[c] += n
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprint(w, "\nrequests in phase")
	for i := range r.phases {
		_, _ = fmt.Fprintf(w, "\t%d", i+1)
	}
	_, _ = fmt.Fprintln(w, "\t")
	for _, c := range sortByCount(all) {
		_, _ = fmt.Fprint(w, c)
		for _, p := range r.phases {
			_, _ = fmt.Fprintf(w, "\t%d", p.requests[c])
		}
		_, _ = fmt.Fprintln(w, "\t")
	}
	_ = w.Flush()
}

// printGrowth writes how the larger size compares with the smaller.
func (r *report) printGrowth(out io.Writer) {
	if len(r.phases) < 4 {
		return
	}
	for i, description := range []string{"first Secrets", "steady minute"} {
		small, large := r.phases[i], r.phases[i+2]
		_, _ = fmt.Fprintf(out, "\n%s, from %d to %d namespaces (x %.1f): memory x %.2f (%.1f KiB for each more), requests x %.1f",
			description, small.size, large.size, float64(large.size)/float64(small.size),
			float64(large.memory.resident)/float64(small.memory.resident),
			float64(large.memory.resident-small.memory.resident)/1024/float64(large.size-small.size),
			float64(sumRequests(large.requests))/float64(sumRequests(small.requests)))
	}
	_, _ = fmt.Fprintln(out)
}

func (r *report) worst() phase {
	if len(r.phases) == 0 {
		return phase{}
	}
	return slices.MaxFunc(r.phases, func(a, b phase) int { return int(a.memory.peak - b.memory.peak) })
}

func (r *report) listsAndWatches() int {
	n := 0
	for _, p := range r.phases {
		n += listsAndWatches(p.requests)
	}
	return n
}

// checkBars fails where a limit is exceeded.
func (r *report) checkBars(b *testing.B) {
	b.Helper()
	if worst := r.worst(); worst.memory.peak > memoryBar {
		b.Errorf("%s: %s MiB resident at the peak, want at most %d", worst.name, mib(worst.memory.peak), memoryBar>>20)
	}
	if n := r.listsAndWatches(); n > 0 {
		b.Errorf("%d lists or watches of Secrets, want none", n)
	}
	for _, p := range r.phases {
		if sumRequests(p.requests) == 0 {
			b.Errorf("%s: no request was counted, so nothing was measured", p.name)
		}
	}
	b.ReportMetric(float64(r.worst().memory.peak)/(1<<20), "MiB-peak")
}
