// Command meshservice is both ends of the traffic that trials send through an edge:
//
//	mesh serve   a service of the mesh, in mutual TLS with the certificates that Istio's agent writes
//	mesh call    a steady caller that counts every failure
//	mesh look    an edge that only says how its certificates look from inside
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

// startServer starts a server; an error of it is sent to errs.
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
