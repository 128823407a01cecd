// Command meshservice is the program of the image mesh: both ends of the traffic that
// tests send through an edge, and an observer of certificates.
//
//	mesh serve   a service of the mesh, with mutual TLS and the certificates that Istio's agent writes
//	mesh call    a client that calls at a steady rate and counts failures
//	mesh look    an edge without traffic that reports how its certificates look inside the container
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds | log.LUTC)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) > 0 {
		switch arguments[0] {
		case "serve":
			return runServe(ctx, arguments[1:])
		case "call":
			return runCall(ctx, arguments[1:])
		case "look":
			return runLook(ctx, arguments[1:])
		}
	}
	return fmt.Errorf("want serve, call or look, got %q", arguments)
}

// startServer starts a server and sends its error to errs.
func startServer(server *http.Server, address string, errs chan<- error) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log.Printf("listening on %s", listener.Addr())
	server.ReadHeaderTimeout = 30 * time.Second
	go func() {
		var err error
		if server.TLSConfig != nil {
			err = server.ServeTLS(listener, "", "")
		} else {
			err = server.Serve(listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			errs <- err
		}
	}()
	return nil
}
