// Package traffic sends requests through real edges of a cluster for as long as a
// trial lasts, and says what was lost.
package traffic

import "time"

// Report is what a caller has seen since its start or the last reset; see Report in
// test/cluster/images/mesh.
type Report struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Requests int       `json:"requests"`
	Failed   int       `json:"failed"`
	// Failures are the first of those that failed.
	Failures []Failure `json:"failures"`
	// LongestGapSeconds is the longest time without an answer. It begins at GapBegan.
	LongestGapSeconds float64   `json:"longestGapSeconds"`
	GapBegan          time.Time `json:"gapBegan"`
	// Serials are those of the certificates that the edge showed to the service.
	Serials []Serial `json:"serials"`
}

// Failure is a request that failed.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Serial is a certificate that the edge showed.
type Serial struct {
	ID     string    `json:"id"`
	Serial string    `json:"serial"`
	First  time.Time `json:"first"`
	Count  int       `json:"count"`
}
