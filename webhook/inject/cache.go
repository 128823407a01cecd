package inject

import (
	"container/list"
	"sync"
)

// cache keeps the values that were used last, and holds about maxBytes at most. The
// author of a pod controls keys and values, so both count. It is safe for concurrent
// use.
type cache[K comparable, V any] struct {
	maxBytes int

	mu      sync.Mutex
	entries map[K]*list.Element
	// order holds every cacheEntry, the one used last in front.
	order list.List
	bytes int
}

type cacheEntry[K comparable, V any] struct {
	key   K
	value V
	size  int
}

func newCache[K comparable, V any](maxBytes int) *cache[K, V] {
	return &cache[K, V]{maxBytes: maxBytes, entries: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry[K, V]).value, true
}

// add keeps the value unless it takes more than an eighth of the cache. size is that of
// key and value in bytes.
func (c *cache[K, V]) add(key K, value V, size int) {
	if size > c.maxBytes/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok {
		return // added concurrently
	}
	c.entries[key] = c.order.PushFront(&cacheEntry[K, V]{key, value, size})
	c.bytes += size
	for c.bytes > c.maxBytes {
		oldest := c.order.Remove(c.order.Back()).(*cacheEntry[K, V])
		delete(c.entries, oldest.key)
		c.bytes -= oldest.size
	}
}
