package webhook

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// validatedObject is what the Validator reads of a namespace or of a workload of any
// kind. The template of a CronJob is nested deeper than that of other kinds.
type validatedObject struct {
	Metadata struct {
		objectMetadata
		// DeletionTimestamp is only looked at for its presence.
		DeletionTimestamp *string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Template    podTemplate `json:"template"`
		JobTemplate *struct {
			Spec struct {
				Template podTemplate `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

func (o *validatedObject) isDeleted() bool { return o.Metadata.DeletionTimestamp != nil }

func (o *validatedObject) template() *podTemplate {
	if o.Spec.JobTemplate != nil {
		return &o.Spec.JobTemplate.Spec.Template
	}
	return &o.Spec.Template
}

// asNamespace returns the namespace that the object is.
func (o *validatedObject) asNamespace() policy.Namespace {
	return policy.Namespace{Name: o.Metadata.Name, Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations}
}

// podTemplate is a pod template: the fields that the engine reads, and the text of
// all fields, because every change of a template makes new pods.
type podTemplate struct {
	text   jsontext.Value
	fields podFields
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *podTemplate) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	text, err := dec.ReadValue()
	if err != nil {
		return err
	}
	*t = podTemplate{text: text.Clone()}
	return json.Unmarshal(t.text, &t.fields, decoding)
}
