package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

func runCall(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	c := &caller{statistics: newStatistics(time.Now)}
	flags.StringVar(&c.target, "target", "", "`URL` to call")
	rate := flags.Float64("rate", 20, "calls per second, whether or not the previous calls have ended")
	maxConcurrent := flags.Int("most", 16, "maximum number of concurrent calls: further calls are skipped, so that a slow machine is not overloaded")
	flags.IntVar(&c.fresh, "fresh", 5, "every `N`th call uses a new connection; the others reuse connections")
	flags.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long a call may take before it counts as failed")
	adminAddress := flags.String("plain", ":8080", "`address` for GET /report, POST /reset and /healthz")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if c.target == "" || *rate <= 0 || c.fresh < 1 || *maxConcurrent < 1 {
		return fmt.Errorf("want --target, --rate above 0, --fresh and --most of 1 or more, got %q, %v, %d and %d", c.target, *rate, c.fresh, *maxConcurrent)
	}
	serverErrors := make(chan error, 1)
	if err := startServer(&http.Server{Handler: c.adminHandler()}, *adminAddress, serverErrors); err != nil {
		return err
	}
	c.sharedClient = &http.Client{Timeout: c.timeout, Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 2 * time.Second}}
	c.singleUseClient = &http.Client{Timeout: c.timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	defer ticker.Stop()
	slots := make(chan struct{}, *maxConcurrent)
	for n := 0; ; {
		select {
		case err := <-serverErrors:
			return err
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		select {
		case slots <- struct{}{}:
			go func(fresh bool) {
				defer func() { <-slots }()
				c.callOnce(ctx, fresh)
			}(n%c.fresh == 0)
			n++
		default:
		}
	}
}

// caller calls a URL at a steady rate.
type caller struct {
	target                        string
	fresh                         int
	timeout                       time.Duration
	sharedClient, singleUseClient *http.Client
	statistics                    *statistics
}

// callOnce makes a call and records it, unless ctx ended meanwhile.
func (c *caller) callOnce(ctx context.Context, fresh bool) {
	client := c.sharedClient
	if fresh {
		client = c.singleUseClient
	}
	record := c.statistics.begin()
	got, err := c.post(ctx, client)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		log.Printf("failed: %v", err)
	}
	record(got, err)
}

// post sends a POST request. Unlike a GET, Go's client does not retry it, so that a
// request that an edge loses counts as failed.
func (c *caller) post(ctx context.Context, client *http.Client) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.target, strings.NewReader("hello"))
	if err != nil {
		return nil, err
	}
	request.GetBody = nil
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("status %d, then: %w", response.StatusCode, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", response.StatusCode, strings.TrimSpace(string(body)))
	}
	var got answer
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, fmt.Errorf("answer %q: %w", body, err)
	}
	if got.Serial == "" {
		return nil, errors.New("the answer names no serial")
	}
	return &got, nil
}

func (c *caller) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, c.statistics.report()) })
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, c.statistics.reset())
	})
	return mux
}
