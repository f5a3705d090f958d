package drill

import (
	"context"
	"path/filepath"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
)

// read returns what a consumer finds in a sink now; zero if it finds nothing. What is in Vault is read past
// the faults that Vault has just now.
func (st *stage) read(s config.Sink) rotation.Credential {
	if v, ok := s.(*config.VaultSink); ok {
		fields := st.vault.Read(v.Mount, v.Path)
		id, _ := fields[v.ClientIDField].(string)
		value, _ := fields[v.ClientSecretField].(string)
		return rotation.Credential{ClientID: id, ClientSecret: secret.New(value)}
	}
	if k, ok := s.(*config.KubernetesSink); ok {
		data := st.cluster.Read(k.Namespace, k.Name)
		return rotation.Credential{ClientID: data[k.ClientIDField], ClientSecret: secret.New(data[k.ClientSecretField])}
	}
	opened, err := st.open(s)
	if err != nil {
		return rotation.Credential{}
	}
	c, err := opened.ReadBack(context.Background())
	if err != nil {
		return rotation.Credential{}
	}
	return c
}

// write puts what consumers use into a sink, before the disaster.
func (st *stage) write(s config.Sink, c rotation.Credential) error {
	if v, ok := s.(*config.VaultSink); ok {
		st.vault.Write(v.Mount, v.Path, map[string]any{v.ClientIDField: c.ClientID, v.ClientSecretField: c.ClientSecret.Reveal()})
		return nil
	}
	opened, err := st.open(s)
	if err != nil {
		return err
	}
	_, err = opened.Store(context.Background(), rotation.Delivery{Credential: c})
	return err
}

func (st *stage) open(s config.Sink) (sink.Sink, error) {
	return sink.Open(s.Below(filepath.Join(st.dir, sinkDir)), sink.Deps{Kubernetes: st.client})
}
