package webhook

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Text of a client is cut between two characters.
func TestClipKeepsUTF8(t *testing.T) {
	assert.Equal(t, strings.Repeat("é", maxText/2), clip(strings.Repeat("é", maxText/2)))
	assert.Equal(t, "a"+strings.Repeat("é", (maxText-len("a..."))/2)+"...", clip("a"+strings.Repeat("é", maxText)))
}
