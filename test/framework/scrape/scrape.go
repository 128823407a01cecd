// Package scrape stands for a client of the metrics and health endpoints of Isthmus: it
// reads them over HTTP.
//
// Tiers: all.
package scrape

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Get returns the body of a URL. A status other than 200 is an error, but Get returns the
// body nevertheless.
func Get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return string(body), err
}

// Metric scrapes a URL and returns the sum of a metric's samples that have all of the
// labels, each written as in the exposition format: `reason="injected"`.
func Metric(ctx context.Context, url, metric string, labels ...string) (float64, error) {
	text, err := Get(ctx, url)
	if err != nil {
		return 0, err
	}
	return Sum(text, metric, labels...)
}

// Sum is like Metric, for the text of an exposition.
func Sum(text, metric string, labels ...string) (float64, error) {
	sum := 0.0
samples:
	for line := range strings.Lines(text) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, set, _ := strings.Cut(sample, "{")
		if name != metric {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(set, label) {
				continue samples
			}
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", sample, err)
		}
		sum += number
	}
	return sum, nil
}
