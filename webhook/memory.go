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

// Limits of the memory that reviews use. Every client that reaches the port can send
// reviews, and every user that may create pods decides on their content. Without
// limits a hundred large reviews, or one whose few bytes decode into many objects,
// would exhaust the server's memory, and no opted-in pod could be created.
const (
	// maxReview is the size in bytes of the largest review: the API server accepts
	// objects of up to 3 MiB, a CREATE carries one and an UPDATE two.
	maxReview = 7 << 20
	// maxPendingBytes is the memory of all bodies that are being received or wait for
	// decoding.
	maxPendingBytes = 16 << 20
	// maxDecodedSize is the largest decodedSize of a review that is decoded.
	maxDecodedSize = 32 << 20
	// maxSmallSize is the largest decodedSize of a small review. Up to
	// maxSmallDecodings small reviews are decided concurrently; of the larger ones one
	// at a time.
	maxSmallSize      = 1 << 20
	maxSmallDecodings = 16
	// maxPooledBuffer is the largest buffer that is reused for another review.
	maxPooledBuffer = 64 << 10
)

var (
	errOverloaded = errors.New("too many reviews at once")
	errTooLarge   = errors.New("too large")
)

// MemoryBudget limits the memory that the reviews of a server use together: about
// 64 MiB at most, and very little while the reviews are as large as pods usually
// are. Bodies in transfer share maxPendingBytes; two semaphores limit how many
// reviews are decoded.
type MemoryBudget struct {
	smallDecodings, largeDecodings chan struct{}

	mu sync.Mutex
	// pendingBytes is the memory of the bodies of all pending reviews.
	pendingBytes int
	// pending holds every *pendingReview, the oldest in front.
	pending list.List
}

// NewMemoryBudget creates an unused budget.
func NewMemoryBudget() *MemoryBudget {
	return &MemoryBudget{smallDecodings: make(chan struct{}, maxSmallDecodings), largeDecodings: make(chan struct{}, 1)}
}

// pendingReview is a review that is being received or waits for decoding.
type pendingReview struct {
	budget *MemoryBudget
	// element of budget.pending; nil once the review is removed.
	element *list.Element
	// reserved is the memory of the body, in bytes.
	reserved int
	// evicted is closed when the review is evicted in favour of newer ones. abortRead
	// then ends a read that waits for the client.
	evicted   chan struct{}
	abortRead func()
}

// enqueue adds a review, which must be removed at the end.
func (m *MemoryBudget) enqueue(w http.ResponseWriter) *pendingReview {
	p := &pendingReview{budget: m, evicted: make(chan struct{}), abortRead: func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(-time.Second))
	}}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.element = m.pending.PushBack(p)
	return p
}

// remove takes the review out of the queue and releases its memory. It may be called
// more than once.
func (p *pendingReview) remove() {
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	p.removeLocked()
}

func (p *pendingReview) removeLocked() {
	if p.element == nil {
		return
	}
	p.budget.pending.Remove(p.element)
	p.budget.pendingBytes -= p.reserved
	p.element = nil
}

// read reads the body into buf, and reserves the buffer's memory as it grows.
func (p *pendingReview) read(buf *bytes.Buffer, body io.Reader) error {
	for {
		buf.Grow(bytes.MinRead)
		if !p.reserve(buf.Cap()) {
			return errOverloaded
		}
		free := buf.AvailableBuffer()
		n, err := body.Read(free[:cap(free)])
		buf.Write(free[:n])
		switch {
		case p.isEvicted():
			return errOverloaded
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// reserve sets the memory of the body to size bytes. If all pending reviews together
// exceed the limit, the oldest ones are evicted: an API server sends a review within
// milliseconds, so a review that takes longer must not block the others. It reports
// whether this review is still pending.
func (p *pendingReview) reserve(size int) bool {
	m := p.budget
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.element == nil {
		return false
	}
	m.pendingBytes += size - p.reserved
	p.reserved = size
	for m.pendingBytes > maxPendingBytes {
		oldest := m.pending.Front().Value.(*pendingReview)
		oldest.removeLocked()
		close(oldest.evicted)
		oldest.abortRead()
	}
	return p.element != nil
}

func (p *pendingReview) isEvicted() bool {
	select {
	case <-p.evicted:
		return true
	default:
		return false
	}
}

// acquireDecoding waits until the review may be decoded and removes it from the
// pending ones. The caller must call release when the review is decided.
func (p *pendingReview) acquireDecoding(ctx context.Context, body []byte) (release func(), err error) {
	size := decodedSize(body)
	if size > maxDecodedSize {
		return nil, errTooLarge
	}
	semaphore := p.budget.smallDecodings
	if size > maxSmallSize {
		semaphore = p.budget.largeDecodings
	}
	select {
	case semaphore <- struct{}{}:
		p.remove()
		return func() { <-semaphore }, nil
	case <-p.evicted:
	case <-ctx.Done():
	}
	return nil, errOverloaded
}

// decodedSize is an upper bound of the memory that a review needs: its text twice,
// and the decoded objects. {} may decode into a container of 408 bytes, in a list
// that grew by doubling.
func decodedSize(body []byte) int {
	size := 2 * len(body)
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			size += 1 << 10
		case ',':
			size += 128
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		}
	}
	return size
}

// reviewBuffers are reused from review to review: request and response are most of
// the garbage that a review would produce.
type reviewBuffers struct {
	request  bytes.Buffer
	response []byte
}

var bufferPool = sync.Pool{New: func() any { return new(reviewBuffers) }}

func acquireBuffers() *reviewBuffers {
	b := bufferPool.Get().(*reviewBuffers)
	b.request.Reset()
	return b
}

// release returns the buffers to the pool, unless this review made them large.
func (b *reviewBuffers) release() {
	if b.request.Cap() <= maxPooledBuffer && cap(b.response) <= maxPooledBuffer {
		bufferPool.Put(b)
	}
}
