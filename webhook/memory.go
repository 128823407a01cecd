package webhook

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// What reviews may take of the server's memory. Whoever reaches the port may send
// them, and whoever may create pods decides what is in them: without bounds a
// hundred large ones, or one whose few bytes stand for many objects, would end the
// server, and with it the creation of every pod that is opted in.
const (
	// maxReview is the largest review that is read: the API server takes objects
	// of up to 3 MiB, a CREATE carries one and an UPDATE two.
	maxReview = 7 << 20
	// maxArriving is the memory of all reviews that are on their way, or wait.
	maxArriving = 16 << 20
	// maxSize is the largest review that is decoded, by the measure of size.
	maxSize = 32 << 20
	// small is the size of reviews that are decided side by side, as many as
	// maxSmall; of larger ones one is decided at a time.
	small    = 1 << 20
	maxSmall = 16
	// maxScratch is the largest buffer that is kept for the next review.
	maxScratch = 64 << 10
)

var (
	errCrowded  = errors.New("too many reviews at once")
	errTooLarge = errors.New("too large")
)

// Room is the memory that the reviews of a server share: about 64 MiB at most, and
// next to nothing while they are as large as pods are.
type Room struct {
	smalls, large chan struct{}

	mu sync.Mutex
	// taken is the memory of those that are arriving, the oldest in front.
	taken    int
	arriving list.List
}

// NewRoom makes an empty room.
func NewRoom() *Room {
	return &Room{smalls: make(chan struct{}, maxSmall), large: make(chan struct{}, 1)}
}

// arrival is a review until it is decided on.
type arrival struct {
	room *Room
	at   *list.Element
	// taken is the memory of its body.
	taken int
	// gone is closed when it gave way to others; hurry ends a read that waits for
	// the client.
	gone  chan struct{}
	hurry func()
}

// arrive begins a review; it ends with leave.
func (r *Room) arrive(w http.ResponseWriter) *arrival {
	a := &arrival{room: r, gone: make(chan struct{}), hurry: func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(-time.Second))
	}}
	r.mu.Lock()
	defer r.mu.Unlock()
	a.at = r.arriving.PushBack(a)
	return a
}

func (a *arrival) leave() {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	a.forget()
}

// forget has the lock. It may be called again.
func (a *arrival) forget() {
	if a.at == nil {
		return
	}
	a.room.arriving.Remove(a.at)
	a.room.taken -= a.taken
	a.at = nil
}

// read reads the body.
func (a *arrival) read(into *bytes.Buffer, body io.Reader) error {
	for {
		into.Grow(bytes.MinRead)
		if !a.grow(into.Cap()) {
			return errCrowded
		}
		free := into.AvailableBuffer()
		n, err := body.Read(free[:cap(free)])
		into.Write(free[:n])
		switch {
		case a.isGone():
			return errCrowded
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// grow notes the memory of the body. Where that of all gets too much, the review
// that has been arriving for the longest gives way: an API server sends one within
// milliseconds, and who does not holds others up. It is false where that is this one.
func (a *arrival) grow(to int) bool {
	r := a.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.at == nil {
		return false
	}
	r.taken += to - a.taken
	a.taken = to
	for r.taken > maxArriving {
		oldest := r.arriving.Front().Value.(*arrival)
		oldest.forget()
		close(oldest.gone)
		oldest.hurry()
	}
	return a.at != nil
}

func (a *arrival) isGone() bool {
	select {
	case <-a.gone:
		return true
	default:
		return false
	}
}

// enter waits until there is room to decide on the review that has arrived, and
// returns what gives it back.
func (a *arrival) enter(ctx context.Context, body []byte) (exit func(), err error) {
	n := size(body)
	if n > maxSize {
		return nil, errTooLarge
	}
	lane := a.room.smalls
	if n > small {
		lane = a.room.large
	}
	select {
	case lane <- struct{}{}:
		a.leave()
		return func() { <-lane }, nil
	case <-a.gone:
	case <-ctx.Done():
	}
	return nil, errCrowded
}

// size is what a review takes at most: its text twice, and what it is decoded into.
// {} may stand for a container of 408 bytes in a list that grew by doubling.
func size(body []byte) int {
	n := 2 * len(body)
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			n += 1 << 10
		case ',':
			n += 128
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		}
	}
	return n
}
