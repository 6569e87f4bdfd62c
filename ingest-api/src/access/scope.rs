//! What a key may do: scopes, and roles as named sets of them.

use std::fmt;

/// One thing that a key may do. The name is part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// See orders, their history and their payments.
    OrdersRead,
    /// Place, capture, ship, return and cancel orders.
    OrdersWrite,
    /// See products.
    CatalogRead,
    /// Change products.
    CatalogWrite,
    /// See stock.
    InventoryRead,
    /// Adjust stock.
    InventoryWrite,
    /// See revenue, products and funnel.
    AnalyticsRead,
    /// See rules.
    RulesRead,
    /// Upload, activate and roll back rules.
    RulesWrite,
    /// See webhook endpoints and deliveries.
    WebhooksRead,
    /// Change webhook endpoints, send events again.
    WebhooksWrite,
    /// See keys, never the keys themselves.
    KeysRead,
    /// Make, rotate and revoke keys.
    KeysWrite,
    /// See topics, records and dead letters.
    OpsRead,
    /// Send dead letters back.
    OpsWrite,
    /// Make tenants and set their limits. Only keys of the operator's tenant have it.
    TenantsWrite,
    /// Say whose signatures of modules are trusted, and whether they are needed.
    RuleSigningWrite,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 17] = [
        Self::OrdersRead,
        Self::OrdersWrite,
        Self::CatalogRead,
        Self::CatalogWrite,
        Self::InventoryRead,
        Self::InventoryWrite,
        Self::AnalyticsRead,
        Self::RulesRead,
        Self::RulesWrite,
        Self::WebhooksRead,
        Self::WebhooksWrite,
        Self::KeysRead,
        Self::KeysWrite,
        Self::OpsRead,
        Self::OpsWrite,
        Self::TenantsWrite,
        Self::RuleSigningWrite,
    ];

    /// Its name, such as `orders:read`.
    pub fn as_str(self) -> &'static str {
        SCOPE_NAMES[self as usize]
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names of [`Scope::ALL`], in its order.
pub const SCOPE_NAMES: &[&str] = &[
    "orders:read",
    "orders:write",
    "catalog:read",
    "catalog:write",
    "inventory:read",
    "inventory:write",
    "analytics:read",
    "rules:read",
    "rules:write",
    "webhooks:read",
    "webhooks:write",
    "keys:read",
    "keys:write",
    "ops:read",
    "ops:write",
    "tenants:write",
    "rule-signing:write",
];

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// All of them.
    pub const ALL: Self = Self::of(&Scope::ALL);

    /// These.
    pub const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= 1 << scopes[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// Whether it has this one.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    /// Those of either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// One by one, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |it| self.has(*it))
    }
}

/// A named set of scopes. What a role means is decided here, so a key keeps its roles by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// A shop's back office: everything but keys, rules and operations.
    Merchant,
    /// A shop's front: places orders, sees products and stock.
    Storefront,
    /// Sees orders, products, stock and analytics.
    Analyst,
    /// Writes rules, and sees what they are about.
    RuleAuthor,
    /// Keeps it running: topics, dead letters, keys to look at.
    Sre,
}

/// The names of [`Role::ALL`], in its order.
pub const ROLE_NAMES: &[&str] = &["admin", "merchant", "storefront", "analyst", "rule-author", "sre"];

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Merchant, Self::Storefront, Self::Analyst, Self::RuleAuthor, Self::Sre];

    /// Its name, such as `rule-author`.
    pub fn as_str(self) -> &'static str {
        ROLE_NAMES[self as usize]
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// What it may do.
    pub fn scopes(self) -> Scopes {
        use Scope::{
            AnalyticsRead, CatalogRead, CatalogWrite, InventoryRead, InventoryWrite, KeysRead, OpsRead,
            OpsWrite, OrdersRead, OrdersWrite, RulesRead, RulesWrite, WebhooksRead, WebhooksWrite,
        };
        match self {
            Self::Admin => Scopes::ALL,
            Self::Merchant => Scopes::of(&[
                OrdersRead,
                OrdersWrite,
                CatalogRead,
                CatalogWrite,
                InventoryRead,
                InventoryWrite,
                AnalyticsRead,
                RulesRead,
                WebhooksRead,
                WebhooksWrite,
            ]),
            Self::Storefront => Scopes::of(&[OrdersRead, OrdersWrite, CatalogRead, InventoryRead]),
            Self::Analyst => Scopes::of(&[OrdersRead, CatalogRead, InventoryRead, AnalyticsRead]),
            Self::RuleAuthor => {
                Scopes::of(&[RulesRead, RulesWrite, OrdersRead, CatalogRead, InventoryRead, AnalyticsRead])
            }
            Self::Sre => Scopes::of(&[OpsRead, OpsWrite, OrdersRead, AnalyticsRead, WebhooksRead, KeysRead]),
        }
    }
}

/// What roles and scopes amount to, by name. A name that this build does not know adds nothing.
pub(crate) fn scopes_of<'a>(
    roles: impl IntoIterator<Item = &'a str>,
    scopes: impl IntoIterator<Item = &'a str>,
) -> Scopes {
    let of_roles = roles.into_iter().filter_map(Role::parse).map(Role::scopes);
    let own = scopes.into_iter().filter_map(Scope::parse).map(|it| Scopes::of(&[it]));
    of_roles.chain(own).fold(Scopes::default(), Scopes::with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        assert_eq!((SCOPE_NAMES.len(), ROLE_NAMES.len()), (Scope::ALL.len(), Role::ALL.len()));
        assert!(Scope::ALL.into_iter().enumerate().all(|(at, it)| it as usize == at));
        assert!(Role::ALL.into_iter().enumerate().all(|(at, it)| it as usize == at));
        assert!(Scope::ALL.into_iter().all(|it| Scope::parse(it.as_str()) == Some(it)));
        assert!(Role::ALL.into_iter().all(|it| Role::parse(it.as_str()) == Some(it)));
        assert_eq!((Scope::parse("orders"), Role::parse("Admin")), (None, None));
    }

    #[test]
    fn only_admin_may_touch_keys_and_tenants() {
        for role in Role::ALL {
            for scope in [Scope::KeysWrite, Scope::TenantsWrite] {
                assert_eq!(role.scopes().has(scope), role == Role::Admin, "{role:?} {scope}");
            }
        }
    }

    #[test]
    fn what_is_unknown_adds_nothing_and_the_rest_adds_up() {
        let scopes = scopes_of(["analyst", "emperor"], ["orders:write", "orders:eat"]);
        let names: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
        assert_eq!(
            names,
            ["orders:read", "orders:write", "catalog:read", "inventory:read", "analytics:read"]
        );
        assert_eq!(scopes_of([], []), Scopes::default());
        assert_eq!(Scopes::ALL.without(Scopes::of(&[Scope::KeysRead])).iter().count(), Scope::ALL.len() - 1);
    }
}
